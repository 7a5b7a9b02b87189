/** An Exim on the other side, in both directions: a second opinion on BDAT, TLS, SMTPUTF8, delivery reports and LMTP. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { messagesByImapflow, smtplib } from '../harness/clients.js';
import { TestDns } from '../harness/dns.js';
import { Exim, eximProgram } from '../harness/exim.js';
import { isAllThere, machineHas } from '../harness/needs.js';
import { basePorts, NodeProcess } from '../harness/node-process.js';
import { freePortOffset } from '../harness/ports.js';
import { runCommand, waitFor } from '../harness/processes.js';

const able = machineHas('python3', 'unbound', 'openssl') && isAllThere(eximProgram() ? [] : ['exim4 (unpacked: see .ci/run)']);

const lines = Array.from({ length: 2_000 }, (_, line) => (line % 7 === 0 ? '.' : `.${line} Grüße aus dem Moor`));
const messageOf = (subject: string, from: string, to: string): Buffer =>
  Buffer.from(
    [
      `From: <${from}>`,
      `To: <${to}>`,
      `Subject: ${subject}`,
      'MIME-Version: 1.0',
      'Content-Type: text/plain; charset=utf-8',
      'Content-Transfer-Encoding: 8bit',
      '',
      ...lines,
      '',
    ].join('\r\n'),
  );
const body = lines.join('\n');
const hasWholeBody = (message: string) => message.replaceAll('\r\n', '\n').includes(`\n\n${body}\n`);

describe.skipIf(!able)('an Exim as the other side', () => {
  let node: NodeProcess;
  let exim: Exim;
  let dns: TestDns;

  const texts = (messages: readonly Buffer[]) => messages.map((bytes) => bytes.toString('utf8'));
  const inbox = (user: string, what: string, isIt: (message: string) => boolean) =>
    waitFor(what, 30_000, async () =>
      texts(await messagesByImapflow({ port: node.port('imaps'), user, password: node.password })).find(isIt),
    );
  const atExim = (what: string, isIt: (message: string) => boolean) =>
    waitFor(what, 30_000, async () => texts(exim.messages()).find(isIt));

  beforeAll(async () => {
    const portOffset = await freePortOffset(Object.values(basePorts));
    exim = await Exim.start({
      domain: 'outside.test',
      relays: [
        { domain: 'example.test', protocol: 'smtp', port: basePorts.smtp + portOffset },
        { domain: 'lmtp.example.test', protocol: 'lmtp', port: basePorts.lmtp + portOffset },
      ],
    });
    dns = await TestDns.start([
      'outside.test. IN MX 10 mx.outside.test.',
      'mx.outside.test. IN A 127.0.0.1',
      'elsewhere.outside.test. IN MX 10 mx.outside.test.',
    ]);
    node = await NodeProcess.start({
      portOffset,
      settings: `[dns]\nservers = ["${dns.address}"]\n`,
      clusterSettings: `[outbound]\nport = ${exim.port}\n`,
    });
    for (const args of [
      ['account', 'create', 'jörg@example.test', '--password', node.password],
      ['domain', 'create', 'lmtp.example.test'],
      ['account', 'create', 'carol@lmtp.example.test', '--password', node.password],
    ]) {
      const { code, stdout, stderr } = await runCommand(process.execPath, node.cliArguments(...args));
      if (code !== 0) throw new Error(stdout + stderr);
    }
  });
  afterAll(async () => {
    await node?.remove();
    await exim?.stop();
    await dns?.stop();
  });

  it('relays to us over TLS in chunks, and our report of success reaches the sender there', async () => {
    const sent = await smtplib({
      port: exim.port,
      from: 'sender@outside.test',
      to: ['bob@example.test'],
      message: messageOf('with a report', 'sender@outside.test', 'bob@example.test'),
      mailOptions: ['RET=HDRS', 'ENVID=env+2B1', 'BODY=8BITMIME'],
      recipientOptions: ['NOTIFY=SUCCESS,FAILURE', 'ORCPT=rfc822;Bob+2Boriginal@outside.test'],
    });
    expect(sent).toBe('accepted');
    const filed = await inbox('bob@example.test', "bob's message", (message) => message.includes('Subject: with a report'));
    expect(filed).toMatch(/Received: from mx\.outside\.test [\s\S]*? with ESMTPS /);
    expect(hasWholeBody(filed)).toBe(true);
    // K: it has used CHUNKING.
    // Its log is written after our reply.
    await waitFor('its line in the log', 30_000, async () => / => bob@example\.test .* K /.test(exim.log()));
    const report = await atExim('the report', (message) => message.includes('report-type=delivery-status'));
    expect(report).toMatch(/^Original-Envelope-Id: env\+1\r?$/m);
    expect(report).toMatch(/^Final-Recipient: rfc822; ?bob@example\.test\r?$/m);
    expect(report).toMatch(/^Action: delivered\r?$/m);
  });

  it('relays an internationalised address to us', async () => {
    const sent = await smtplib({
      port: exim.port,
      from: 'sönder@outside.test',
      to: ['jörg@example.test'],
      message: messageOf('für Jörg', 'sönder@outside.test', 'jörg@example.test'),
      mailOptions: ['SMTPUTF8', 'BODY=8BITMIME'],
    });
    expect(sent).toBe('accepted');
    const filed = await inbox('jörg@example.test', "Jörg's message", (message) => message.includes('Subject: für Jörg'));
    expect(filed).toMatch(/^Return-Path: <sönder@outside\.test>/);
  });

  it('hands us mail over LMTP', async () => {
    const sent = await smtplib({
      port: exim.port,
      from: 'sender@outside.test',
      to: ['carol@lmtp.example.test'],
      message: messageOf('over LMTP', 'sender@outside.test', 'carol@lmtp.example.test'),
    });
    expect(sent).toBe('accepted');
    const filed = await inbox('carol@lmtp.example.test', "carol's message", (message) => message.includes('Subject: over LMTP'));
    expect(filed).toMatch(/ with LMTP/);
    expect(hasWholeBody(filed)).toBe(true);
  });

  it('takes from us over TLS in chunks, 8-bit and internationalised, and reports success itself', async () => {
    const sent = await smtplib({
      port: node.port('submission'),
      from: 'alice@example.test',
      to: ['jürgen@outside.test'],
      message: messageOf('für draußen', 'alice@example.test', 'jürgen@outside.test'),
      mailOptions: ['SMTPUTF8', 'BODY=8BITMIME', 'ENVID=ours'],
      recipientOptions: ['NOTIFY=SUCCESS'],
      login: { user: 'alice@example.test', password: node.password },
    });
    expect(sent).toBe('accepted');
    const filed = await atExim('the message', (message) => message.includes('Subject: für draußen'));
    expect(filed).toMatch(/ with utf8esmtps/i);
    expect(hasWholeBody(filed)).toBe(true);
    const report = await inbox('alice@example.test', "Exim's report", (message) =>
      message.includes('report-type=delivery-status'),
    );
    expect(report).toMatch(/^Action: delivered\r?$/m);
    expect(report).toMatch(/^Remote-MTA: dns; ?\S+\r?$|^Reporting-MTA: dns; ?mx\.outside\.test\r?$/m);
  });

  it('refuses what it does not want, and the sender hears of it from us', async () => {
    const sent = await smtplib({
      port: node.port('submission'),
      from: 'alice@example.test',
      to: ['nobody@elsewhere.outside.test'],
      message: messageOf('unwanted', 'alice@example.test', 'nobody@elsewhere.outside.test'),
      login: { user: 'alice@example.test', password: node.password },
    });
    expect(sent).toBe('accepted');
    const bounce = await inbox(
      'alice@example.test',
      'the bounce',
      (message) => /^Return-Path: <>/.test(message) && message.includes('Subject: unwanted'),
    );
    expect(bounce).toMatch(/^Action: failed\r?$/m);
    expect(bounce).toMatch(/^Status: 5\.\d+\.\d+\r?$/m);
  });
});
