/** A Postfix on the other side, in both directions: TLS, SMTPUTF8, delivery reports, LMTP, and what becomes of mail that it can't take. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { messagesByImapflow, smtplib } from '../harness/clients.js';
import { TestDns } from '../harness/dns.js';
import { machineHas } from '../harness/needs.js';
import { basePorts, NodeProcess } from '../harness/node-process.js';
import { freePortOffset } from '../harness/ports.js';
import { Postfix } from '../harness/postfix.js';
import { runCommand, waitFor } from '../harness/processes.js';

const able = machineHas('python3', 'postfix', 'unbound', 'openssl');

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
      'Grüße aus dem Moor',
      '.',
      '..',
      '',
    ].join('\r\n'),
  );

describe.skipIf(!able)('a Postfix as the other side', () => {
  let node: NodeProcess;
  let postfix: Postfix;
  /** Takes no SMTPUTF8 and has no TLS. */
  let plainPostfix: Postfix;
  let dns: TestDns;

  const login = (name: string) => ({ port: node.port('imaps'), user: `${name}@example.test`, password: node.password });
  const alice = () => ({ user: 'alice@example.test', password: node.password });
  const inbox = (name: string, what: string, isIt: (message: string) => boolean) =>
    waitFor(what, 30_000, async () => {
      const found = await messagesByImapflow(login(name));
      return found.map((bytes) => bytes.toString('utf8')).find(isIt);
    });
  const atPostfix = (what: string, isIt: (message: string) => boolean) =>
    waitFor(what, 30_000, async () =>
      postfix
        .messages()
        .map((bytes) => bytes.toString('utf8'))
        .find(isIt),
    );

  beforeAll(async () => {
    const portOffset = await freePortOffset(Object.values(basePorts));
    const [smtp, lmtp] = [basePorts.smtp + portOffset, basePorts.lmtp + portOffset];
    postfix = await Postfix.start({
      domain: 'outside.test',
      delivery: 'maildir',
      hasTls: true,
      settings: {
        relay_domains: 'example.test, lmtp.example.test',
        smtpd_relay_restrictions: 'permit_mynetworks,reject',
        transport_maps: `inline:{example.test=smtp:[127.0.0.1]:${smtp}, lmtp.example.test=lmtp:inet:127.0.0.1:${lmtp}}`,
        smtp_tls_security_level: 'encrypt',
      },
    });
    plainPostfix = await Postfix.start({ domain: 'plain.test', delivery: 'maildir', settings: { smtputf8_enable: 'no' } });
    dns = await TestDns.start([
      'outside.test. IN MX 10 mx.outside.test.',
      'mx.outside.test. IN A 127.0.0.1',
      'plain.test. IN MX 10 mx.plain.test.',
      'mx.plain.test. IN A 127.0.0.1',
    ]);
    node = await NodeProcess.start({
      portOffset,
      settings: `[dns]\nservers = ["${dns.address}"]\n`,
      clusterSettings: `[outbound]\nport = ${postfix.port}\n`,
    });
    const add = async (...args: string[]) => {
      const { code, stdout, stderr } = await runCommand(process.execPath, node.cliArguments(...args));
      if (code !== 0) throw new Error(stdout + stderr);
    };
    await add('account', 'create', 'jörg@example.test', '--password', node.password);
    await add('domain', 'create', 'lmtp.example.test');
    await add('account', 'create', 'carol@lmtp.example.test', '--password', node.password);
  });
  afterAll(async () => {
    await node?.remove();
    await postfix?.stop();
    await plainPostfix?.stop();
    await dns?.stop();
  });

  it('relays to us over TLS, and our report of success reaches the sender there', async () => {
    const sent = await smtplib({
      port: postfix.port,
      from: 'sender@outside.test',
      to: ['bob@example.test'],
      message: messageOf('with a report', 'sender@outside.test', 'bob@example.test'),
      mailOptions: ['RET=HDRS', 'ENVID=env+2B1', 'BODY=8BITMIME'],
      recipientOptions: ['NOTIFY=SUCCESS,FAILURE', 'ORCPT=rfc822;Bob+2Boriginal@outside.test'],
    });
    expect(sent).toBe('accepted');
    const filed = await inbox('bob', "bob's message", (message) => message.includes('Subject: with a report'));
    expect(filed).toMatch(/Received: from mx\.outside\.test [\s\S]*? with ESMTPS /);
    const report = await atPostfix('the report', (message) => message.includes('report-type=delivery-status'));
    expect(report).toMatch(/^Original-Envelope-Id: env\+1\r?$/m);
    expect(report).toMatch(/^Original-Recipient: rfc822; ?Bob\+original@outside\.test\r?$/m);
    expect(report).toMatch(/^Final-Recipient: rfc822; ?bob@example\.test\r?$/m);
    expect(report).toMatch(/^Action: delivered\r?$/m);
    expect(report).toMatch(/^Status: 2\./m);
    expect(report).toMatch(/text\/rfc822-headers/);
    expect(report).not.toMatch(/Grüße/);
  });

  it('relays an internationalised address to us', async () => {
    const sent = await smtplib({
      port: postfix.port,
      from: 'sönder@outside.test',
      to: ['jörg@example.test'],
      message: messageOf('für Jörg', 'sönder@outside.test', 'jörg@example.test'),
      mailOptions: ['SMTPUTF8', 'BODY=8BITMIME'],
    });
    expect(sent).toBe('accepted');
    const found = await waitFor("Jörg's message", 30_000, async () => {
      const messages = await messagesByImapflow({ ...login('alice'), user: 'jörg@example.test' });
      return messages.map((bytes) => bytes.toString('utf8')).find((message) => message.includes('Subject: für Jörg'));
    });
    expect(found).toMatch(/^Return-Path: <sönder@outside\.test>/);
    expect(found).toMatch(/ with UTF8SMTPS? /);
  });

  it('hands us mail over LMTP', async () => {
    const sent = await smtplib({
      port: postfix.port,
      from: 'sender@outside.test',
      to: ['carol@lmtp.example.test'],
      message: messageOf('over LMTP', 'sender@outside.test', 'carol@lmtp.example.test'),
    });
    expect(sent).toBe('accepted');
    await waitFor("carol's message", 30_000, async () => {
      const messages = await messagesByImapflow({ ...login('alice'), user: 'carol@lmtp.example.test' });
      return messages.some((bytes) => bytes.includes('Subject: over LMTP') && / with LMTP/.test(bytes.toString('latin1')));
    });
  });

  it('takes from us over TLS, 8-bit and internationalised, and reports success itself', async () => {
    const sent = await smtplib({
      port: node.port('submission'),
      from: 'alice@example.test',
      to: ['jürgen@outside.test'],
      message: messageOf('für draußen', 'alice@example.test', 'jürgen@outside.test'),
      mailOptions: ['SMTPUTF8', 'BODY=8BITMIME', 'ENVID=ours'],
      recipientOptions: ['NOTIFY=SUCCESS'],
      login: alice(),
    });
    expect(sent).toBe('accepted');
    const filed = await atPostfix('the message', (message) => message.includes('Subject: für draußen'));
    expect(filed).toMatch(/ with UTF8SMTPS /);
    const report = await inbox('alice', "the Postfix's report", (message) => message.includes('report-type=delivery-status'));
    expect(report).toMatch(/^Action: delivered\r?$/m);
    expect(report).toMatch(/^Original-Envelope-Id: ours\r?$/m);
    expect(report).toMatch(/^Reporting-MTA: dns; ?mx\.outside\.test\r?$/m);
  });

  it('bounces to the sender what the other side can not take', async () => {
    const { code, stderr } = await runCommand(
      process.execPath,
      node.cliArguments('settings', 'set', `outbound.port=${plainPostfix.port}`),
    );
    expect(stderr).toBe('');
    expect(code).toBe(0);
    const sent = await smtplib({
      port: node.port('submission'),
      from: 'alice@example.test',
      to: ['jürgen@plain.test'],
      message: messageOf('needs SMTPUTF8', 'alice@example.test', 'jürgen@plain.test'),
      mailOptions: ['SMTPUTF8', 'BODY=8BITMIME'],
      login: alice(),
    });
    expect(sent).toBe('accepted');
    const bounce = await inbox(
      'alice',
      'the bounce',
      (message) => message.includes('needs SMTPUTF8') && /^Return-Path: <>/.test(message),
    );
    expect(bounce).toMatch(/message\/global-delivery-status/);
    expect(bounce).toMatch(/^Final-Recipient: utf-8; ?jürgen@plain\.test\r?$/m);
    expect(bounce).toMatch(/^Status: 5\.6\.7\r?$/m);
  });

  it('never passes on without TLS what requires it', async () => {
    const sent = await smtplib({
      port: node.port('submission'),
      from: 'alice@example.test',
      to: ['x@plain.test'],
      message: messageOf('requires TLS', 'alice@example.test', 'x@plain.test'),
      mailOptions: ['REQUIRETLS'],
      login: alice(),
    });
    expect(sent).toBe('accepted');
    const bounce = await inbox(
      'alice',
      'the bounce',
      (message) => /^Return-Path: <>/.test(message) && message.includes('requires TLS'),
    );
    expect(bounce).toMatch(/^Status: 5\.7\.\d+\r?$/m);
    // RFC 8689 5: the content of such a message is not returned.
    expect(bounce).not.toMatch(/Grüße/);
    expect(plainPostfix.messages().some((bytes) => bytes.includes('requires TLS'))).toBe(false);
  });
});
