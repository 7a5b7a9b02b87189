/**
 * A Postfix with bad manners by configuration, as one meets them, each on a port of its own: slow, taking little at a time, announcing next to nothing, putting
 * off, hanging up, refusing before it has heard anything. And as a filter that speaks for its clients (XFORWARD).
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { messagesByImapflow, smtplib } from '../harness/clients.js';
import { TestDns } from '../harness/dns.js';
import { machineHas } from '../harness/needs.js';
import { basePorts, NodeProcess } from '../harness/node-process.js';
import { freePortOffset } from '../harness/ports.js';
import { Postfix } from '../harness/postfix.js';
import { waitFor } from '../harness/processes.js';

const able = machineHas('python3', 'postfix', 'unbound');

/** What is different on each port. */
const manners = {
  slow: { smtpd_client_restrictions: 'sleep 2', smtpd_data_restrictions: 'sleep 2', smtpd_end_of_data_restrictions: 'sleep 2' },
  // Without PIPELINING, BDAT, 8BITMIME, DSN, SIZE and codes of RFC 3463.
  terse: {
    smtpd_discard_ehlo_keywords: 'pipelining, chunking, 8bitmime, dsn, size, enhancedstatuscodes, smtputf8, etrn, vrfy',
    smtputf8_enable: 'no',
  },
  small: { message_size_limit: '5000' },
  stingy: { smtpd_recipient_limit: '2', smtpd_recipient_overshoot_limit: '1' },
  later: { smtpd_recipient_restrictions: 'check_recipient_access inline:{ { x@later.test = 450 4.2.0 Not today } }' },
  strict: { smtpd_delay_reject: 'no', smtpd_client_restrictions: 'reject' },
  // 421 right after the first mistake; and the second recipient is one.
  touchy: {
    smtpd_recipient_restrictions: 'check_recipient_access inline:{ { nobody@touchy.test = 550 5.1.1 Nobody } }',
    smtpd_soft_error_limit: '1',
    smtpd_hard_error_limit: '1',
    smtpd_error_sleep_time: '1s',
  },
  // Takes the message whole before it refuses.
  late: { smtpd_end_of_data_restrictions: 'reject' },
} as const;
type Manner = keyof typeof manners;
const names = Object.keys(manners) as Manner[];

const lines = Array.from({ length: 60 }, (_, line) => (line % 7 === 0 ? '.' : `.${line} Grüße aus dem Moor`));
const messageOf = (subject: string, bytes = 0): Buffer =>
  Buffer.from(
    [
      'From: <alice@example.test>',
      `Subject: ${subject}`,
      'MIME-Version: 1.0',
      'Content-Type: text/plain; charset=utf-8',
      'Content-Transfer-Encoding: 8bit',
      '',
      ...lines,
      ...Array.from({ length: Math.ceil(bytes / 80) }, () => 'x'.repeat(78)),
      '',
    ].join('\r\n'),
  );
const body = lines.join('\n');

describe.skipIf(!able)('a Postfix', () => {
  let node: NodeProcess;
  let dns: TestDns;
  let postfix: Postfix;

  beforeAll(async () => {
    const portOffset = await freePortOffset(Object.values(basePorts));
    postfix = await Postfix.start({
      domain: 'outside.test',
      delivery: 'maildir',
      settings: {
        virtual_mailbox_domains: names.map((name) => `${name}.test`).join(', '),
        relay_domains: 'example.test',
        transport_maps: `inline:{example.test=smtp:[127.0.0.1]:${basePorts.smtp + portOffset}}`,
        smtp_send_xforward_command: 'yes',
      },
      listeners: manners,
    });
    dns = await TestDns.start(
      names.flatMap((name) => [`${name}.test. IN MX 10 mx.${name}.test.`, `mx.${name}.test. IN A 127.0.0.1`]),
    );
    const routes = names.map((name) => `[[outbound.routes]]\nname = "${name}"\nkind = "mx"\nport = ${postfix.portOf(name)}\n`);
    node = await NodeProcess.start({
      portOffset,
      settings: `[dns]\nservers = ["${dns.address}"]\n`,
      clusterSettings: [
        '[smtp]',
        `isTrustedPeer = "listener == 'smtp' && remote_ip == '127.0.0.1'"`,
        '[outbound]',
        'retryScheduleSeconds = [2, 2, 600]',
        // Each domain has a port of its own.
        `route = "rcpt_domain.split('.')[0]"`,
        ...routes,
      ].join('\n'),
    });
  });
  afterAll(async () => {
    await node?.remove();
    await postfix?.stop();
    await dns?.stop();
  });

  const send = (
    subject: string,
    to: readonly string[],
    more: Partial<Parameters<typeof smtplib>[0]> & { bytes?: number } = {},
  ) => {
    const { bytes, ...options } = more;
    return smtplib({
      port: node.port('submission'),
      from: 'alice@example.test',
      to,
      message: messageOf(subject, bytes),
      login: { user: 'alice@example.test', password: node.password },
      ...options,
    });
  };
  const filed = (subject: string) =>
    postfix
      .messages()
      .map((bytes) => bytes.toString('utf8').replaceAll('\r\n', '\n'))
      .filter((text) => text.includes(`Subject: ${subject}\n`));
  const arrived = (subject: string, copies = 1) =>
    waitFor(`"${subject}"`, 60_000, async () => filed(subject).length >= copies && filed(subject));
  const inbox = (what: string, user: string, isIt: (message: string) => boolean) =>
    waitFor(what, 60_000, async () => {
      const login = { port: node.port('imaps'), user, password: node.password };
      return (await messagesByImapflow(login)).map((bytes) => bytes.toString('utf8')).find(isIt);
    });
  const report = (subject: string) =>
    inbox(`the report of "${subject}"`, 'alice@example.test', (text) => /^Return-Path: <>/.test(text) && text.includes(subject));

  it('a slow one gets it once', async () => {
    expect(await send('slowly', ['x@slow.test'])).toBe('accepted');
    const found = await arrived('slowly');
    expect(found).toHaveLength(1);
    expect(found[0]).toContain(`\n\n${body}\n`);
  });

  it('one that announces next to nothing gets every octet; the report of success says that it was relayed', async () => {
    expect(
      await send('tersely', ['x@terse.test'], { mailOptions: ['BODY=8BITMIME'], recipientOptions: ['NOTIFY=SUCCESS'] }),
    ).toBe('accepted');
    const [text] = await arrived('tersely');
    expect(text).toContain(`\n\n${body}\n`);
    expect(await report('tersely')).toMatch(/^Action: relayed\r?$/m);
  });

  it('one that has announced how little it takes is not sent more, and the sender is told', async () => {
    expect(await send('too large', ['x@small.test'], { bytes: 20_000 })).toBe('accepted');
    expect(await report('too large')).toMatch(/^Status: 5\.3\.4\r?$/m);
    expect(await send('small enough', ['x@small.test'])).toBe('accepted');
    await arrived('small enough');
  });

  it('one that takes two recipients at a time gets them all, each once', async () => {
    const to = ['a', 'b', 'c', 'd', 'e'].map((name) => `${name}@stingy.test`);
    expect(await send('for five', to)).toBe('accepted');
    // Postfix files one copy for all recipients of a transaction.
    await arrived('for five', 3);
    // Its log is written a little later than the file.
    const served = await waitFor('five lines in its log', 30_000, async () => {
      const sent = [...postfix.log().matchAll(/to=<(.@stingy\.test)>.* status=sent/g)].map((match) => match[1]);
      return sent.length >= to.length && sent;
    });
    expect(served.sort()).toEqual(to);
  });

  it('one that says "not today" to one of two gets the other at once', async () => {
    expect(await send('partly', ['x@later.test', 'y@later.test'])).toBe('accepted');
    await arrived('partly');
    const rows = await waitFor('the rest to wait', 30_000, async () => {
      const { stdout } = await node.cli('queue', 'list', '--domain', 'later.test', '--json');
      const waiting = JSON.parse(stdout) as { pending: number; lastReply?: string }[];
      return waiting.length > 0 && waiting;
    });
    expect(rows[0]).toMatchObject({ pending: 1, lastReply: expect.stringContaining('450 4.2.0') });
  });

  it('one that refuses whoever connects is not asked for ever: the sender is told its words', async () => {
    expect(await send('unwanted', ['x@strict.test'])).toBe('accepted');
    expect(await report('unwanted')).toMatch(/554 5\.7\.1/);
  });

  it('one that hangs up after a mistake has what it took, once, and the mistake is told', async () => {
    expect(await send('one of two', ['nobody@touchy.test', 'y@touchy.test'])).toBe('accepted');
    expect(await report('one of two')).toMatch(/^Final-Recipient: rfc822; ?nobody@touchy\.test\r?$/m);
    expect(await arrived('one of two')).toHaveLength(1);
  });

  it('one that refuses at the end of the message has nothing, and the sender has its words', async () => {
    expect(await send('to the end', ['x@late.test'])).toBe('accepted');
    expect(await report('to the end')).toMatch(/554 5\.7\.1/);
    expect(filed('to the end')).toEqual([]);
  });

  it('a filter speaks for its client by XFORWARD, which our Received field shows', async () => {
    const sent = await smtplib({
      port: postfix.port,
      from: 'sender@outside.test',
      to: ['bob@example.test'],
      message: messageOf('forwarded'),
    });
    expect(sent).toBe('accepted');
    const text = await inbox('the message', 'bob@example.test', (message) => message.includes('Subject: forwarded\r\n'));
    expect(text).toMatch(/\(forwarded for (localhost )?\[127\.0\.0\.1\] helo=client\.test\)/);
  });
});
