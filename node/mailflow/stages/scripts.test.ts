/** Operators' scripts from connect to RCPT, in sessions with a real receiver, store and settings. */
import { afterEach, describe, expect, it } from 'vitest';
import { registry, systemClock } from '../../../ops/telemetry/index.js';
import { type ScriptedNode, type ScriptedOptions, startScriptedNode } from '../testing/scripted-node.js';

const opened: ScriptedNode[] = [];
afterEach(async () => {
  for (const one of opened.splice(0)) await one.close();
});

async function start(options: ScriptedOptions): Promise<ScriptedNode> {
  const started = await startScriptedNode(options);
  opened.push(started);
  return started;
}

const runs = async (labels: Record<string, string>): Promise<number> => {
  const { values } = await registry.getSingleMetric('starling_stage_scripts_total')!.get();
  const wanted = Object.entries(labels);
  return values.filter(({ labels: has }) => wanted.every(([name, value]) => has[name] === value))[0]?.value ?? 0;
};

/** With all that is needed in front. In texts here `@{x}` is a variable. */
const script = (body: string) =>
  `require ["reject", "ereject", "variables", "environment", "envelope", "copy", "include", "extlists"];\n${body}`.replaceAll(
    '@{',
    '$' + '{',
  );

const user = { mode: 'submission', isSecure: true } as const;
const logIn = `AUTH PLAIN ${Buffer.from('\0alice@example.test\0wonderland').toString('base64')}`;

describe('a script at connect', () => {
  it('knows the client and the node, and refuses with a code of its own', async () => {
    const { talk } = await start({
      at: { connect: "'door'" },
      sieve: {
        door: script(`
          if environment "remote-ip" "203.0.113.9" { ereject "521 5.3.2 No mail here"; }
          elsif environment "remote-ip" "203.0.113.8" {
            set "all" "";
            if environment :matches "name" "*" { set "all" "@{1}"; }
            if environment :matches "location" "*" { set "all" "@{all} @{1}"; }
            if environment :matches "phase" "*" { set "all" "@{all} @{1}"; }
            if environment :matches "host" "*" { set "all" "@{all} @{1}"; }
            if environment :matches "domain" "*" { set "all" "@{all} @{1}"; }
            if environment :matches "vnd.starling.local_port" "*" { set "all" "@{all} @{1}"; }
            if environment :matches "vnd.starling.stage" "*" { set "all" "@{all} @{1}"; }
            ereject "554 5.7.1 @{all}";
          }`),
      },
    });
    expect((await talk()).greeting).toMatch(/^220 /);
    expect((await talk({ remoteAddress: '203.0.113.9' })).greeting).toBe('521 5.3.2 No mail here');
    expect((await talk({ remoteAddress: '203.0.113.8' })).greeting).toBe(
      '554 5.7.1 starling MTA during mx.example.test example.test 25 connect',
    );
  });

  it('gives back the slot of whom it refuses', async () => {
    const { talk } = await start({
      at: { connect: "'door'" },
      sieve: { door: script('if environment "remote-ip" "203.0.113.9" { reject "Not you"; }') },
      sections: { limits: { concurrency: [{ name: 'all', stage: 'connect', key: "'all'", max: 1 }] } },
    });
    for (let i = 0; i < 3; i++) expect((await talk({ remoteAddress: '203.0.113.9' })).greeting).toBe('554 5.7.1 Not you');
    expect((await talk()).greeting).toMatch(/^220 /);
  });
});

describe('scripts at EHLO and AUTH', () => {
  it('refuse a name, and a login whose password was right', async () => {
    const { talk } = await start({
      at: { ehlo: "'names'", auth: "protocol == 'submission' ? 'logins' : ''" },
      sieve: {
        names: script('if environment :matches "vnd.starling.helo" "*.dynamic.test" { reject "No dynamic names"; }'),
        logins: script(`
          if allof(environment "vnd.starling.authenticated_as" "alice@example.test", environment "vnd.starling.is_tls" "true",
                   environment "vnd.starling.helo" "office.test") { stop; }
          ereject text:
454 4.7.0 Only from the office,
which is closed.
.
;`),
      },
    });
    const dialog = await talk({ ...user, helo: 'host.dynamic.test' });
    expect(await dialog.say('EHLO 1.dynamic.test')).toBe('550 5.7.1 No dynamic names');
    await dialog.say('EHLO client.test');
    expect(await dialog.say(logIn)).toBe('454-4.7.0 Only from the office,\n454 4.7.0 which is closed.');
    await dialog.say('EHLO office.test');
    expect(await dialog.say(logIn)).toMatch(/^235 /);
  });
});

describe('a script at MAIL', () => {
  const from = script(`
    if envelope :domain "from" "spam.test" { reject "We know you"; }
    if envelope :localpart "from" "later" { reject "450 4.7.1 Come back"; }
    if envelope "from" "" { keep; }
    if envelope :domain "from" "trash.test" { discard; }`);

  it('refuses senders, and takes all of a transaction to throw it away', async () => {
    const { talk, node, alice, log } = await start({ at: { mail: "'from'" }, sieve: { from } });
    const dialog = await talk();
    expect(await dialog.say('MAIL FROM:<x@spam.test>')).toBe('550 5.7.1 We know you');
    expect(await dialog.say('MAIL FROM:<later@b.test>')).toBe('450 4.7.1 Come back');
    expect(await dialog.say('MAIL FROM:<>')).toMatch(/^250/);
    await dialog.say('RSET');
    expect(await dialog.send('x@trash.test', ['nobody@example.test', 'any@elsewhere.test', 'alice@example.test'])).toMatch(
      /^250 2\.0\.0 Ok: queued as/,
    );
    expect(log.some(({ msg }) => msg === 'message taken and thrown away')).toBe(true);
    expect(await dialog.send('x@b.test', 'nobody@example.test')).toMatch(/^550 5\.1\.1/);
    await dialog.say('RSET');
    expect(await dialog.send('x@b.test', 'alice@example.test')).toMatch(/^250/);
    await node.settled();
    expect(await node.mailbox(alice)).toHaveLength(1);
    expect(await runs({ stage: 'mail', script: 'from', result: 'discarded' })).toBe(1);
  });

  it('sees the reverse-path as it was rewritten', async () => {
    const { talk } = await start({
      at: { mail: "'from'" },
      sieve: { from },
      sections: { accept: { mail: { rewrite: "'x@spam.test'" } } },
    });
    expect(await (await talk()).say('MAIL FROM:<x@good.test>')).toBe('550 5.7.1 We know you');
  });
});

describe('a script at RCPT', () => {
  const to = script(`
    if envelope :localpart "to" "gone" { reject "550 5.1.6 Moved away"; }
    elsif envelope :localpart "to" "hole" { discard; }
    elsif envelope :localpart "to" "boss" { redirect "bob@example.test"; }
    elsif envelope :localpart "to" "far" { redirect "carol@elsewhere.test"; }
    elsif envelope :localpart "to" "both" { redirect "alice@example.test"; redirect "bob@example.test"; }
    elsif envelope :localpart "to" "alice" { redirect :copy "bob@example.test"; }
    elsif envelope :localpart "to" "lost" { redirect "nobody@example.test"; }
    elsif envelope :localpart "to" "bob" { redirect :copy "nobody@example.test"; }
    elsif envelope :localpart "to" "odd" { set "odd" "no address"; redirect "@{odd}"; }
    elsif envelope :matches :domain "to" "*.alias.test" { set "who" "@{1}"; redirect "@{who}@example.test"; }
    elsif envelope :localpart "to" "postmaster" { reject "Nobody reads this"; }`);
  const at = { rcpt: "'to'" };

  it('refuses, throws away, and sends to others instead or besides', async () => {
    const { talk, node, alice, bob, accepted } = await start({ at, sieve: { to } });
    const dialog = await talk();
    await dialog.say('MAIL FROM:<a@b.test>');
    expect(await dialog.say('RCPT TO:<gone@example.test>')).toBe('550 5.1.6 Moved away');
    for (const name of ['hole', 'boss', 'both']) expect(await dialog.say(`RCPT TO:<${name}@example.test>`)).toMatch(/^250/);
    await dialog.say('DATA');
    const answer = await dialog.say('Subject: one\r\n\r\n.');
    expect(await accepted(answer)).toMatchObject({
      recipients: ['bob@example.test', 'alice@example.test', 'bob@example.test'],
      checks: { 'script:to': 'rcpt refused, rcpt discarded, rcpt redirected' },
    });
    await node.settled();
    expect([await node.mailbox(alice), await node.mailbox(bob)].map(({ length }) => length)).toEqual([1, 1]);
    expect(await dialog.send('a@b.test', 'alice@example.test')).toMatch(/^250/);
    expect(await dialog.send('a@b.test', 'zoe@one.alias.test')).toMatch(/^550 5\.1\.1/);
    await dialog.say('RSET');
    expect(await dialog.send('a@b.test', 'x@alice.alias.test')).toMatch(/^250/);
    await node.settled();
    expect([await node.mailbox(alice), await node.mailbox(bob)].map(({ length }) => length)).toEqual([3, 2]);
    expect(await dialog.send('a@b.test', 'hole@example.test')).toMatch(/^250 2\.0\.0 Ok: queued as/);
  });

  it('relays for whom it redirects, and for nobody else; copies are not reported to the sender', async () => {
    const { talk, node } = await start({ at, sieve: { to }, isRunning: false });
    const dialog = await talk();
    expect(await dialog.send('a@b.test', 'carol@elsewhere.test')).toBe('550 5.7.1 Relaying denied');
    await dialog.say('RSET');
    await dialog.say('MAIL FROM:<a@b.test>');
    expect(await dialog.say('RCPT TO:<far@example.test> NOTIFY=FAILURE,DELAY')).toMatch(/^250/);
    expect(await dialog.say('RCPT TO:<alice@example.test> NOTIFY=SUCCESS')).toMatch(/^250/);
    await dialog.say('DATA');
    const id = /queued as (\w+)/.exec(await dialog.say('Subject: one\r\n\r\n.'))![1]!;
    const { destinations } = (await node.queue.show(id))!;
    const recipients = destinations.flatMap((one) => one.recipients);
    expect(recipients.find(({ address }) => address === 'carol@elsewhere.test')).toMatchObject({
      notify: ['FAILURE', 'DELAY'],
      orcpt: 'rfc822;far@example.test',
    });
    expect(recipients.find(({ address }) => address === 'bob@example.test')?.notify).toEqual(['NEVER']);
  });

  it('gives the answer of the directory where its recipient is not there, and fails where a copy can not be made', async () => {
    const { talk, log } = await start({ at, sieve: { to } });
    const dialog = await talk();
    await dialog.say('MAIL FROM:<a@b.test>');
    expect(await dialog.say('RCPT TO:<lost@example.test>')).toMatch(/^550 5\.1\.1/);
    expect(await dialog.say('RCPT TO:<bob@example.test>')).toMatch(/^451 4\.3\.5/);
    expect(await dialog.say('RCPT TO:<odd@example.test>')).toMatch(/^451 4\.3\.5/);
    const [line] = log.filter(({ msg }) => msg === 'a script for incoming mail has failed');
    expect(line).toMatchObject({
      stage: 'rcpt',
      script: 'to',
      err: { message: expect.stringContaining('550 No such recipient') },
    });
  });

  it('knows what the client has asked for, who has logged in, and the size that was declared', async () => {
    const shown = ['auth', 'ret', 'envid', 'notify', 'orcpt', 'bymode', 'bytrace'];
    const collect = shown.map((part) => `if envelope :matches "${part}" "*" { set "all" "@{all} ${part}=@{1}"; }`).join('\n');
    const all = script(`set "all" ""; ${collect} if size :over 4000 { set "all" "@{all} large"; }
      if envelope :value "gt" :comparator "i;ascii-numeric" "bytimerelative" "3000" { set "all" "@{all} soon"; }
      reject "550 5.7.1 @{all}";`).replace(
      '"extlists"',
      '"extlists", "envelope-dsn", "envelope-deliverby", "relational", "comparator-i;ascii-numeric"',
    );
    const { talk } = await start({ at: { rcpt: "'all'" }, sieve: { all }, sections: { smtp: { mustMatchSender: false } } });
    const dialog = await talk(user);
    await dialog.say(logIn);
    const mail = 'MAIL FROM:<a@b.test> SIZE=5000 RET=HDRS ENVID=x1 BY=3600;NT';
    expect(await dialog.say(mail)).toMatch(/^250/);
    expect(await dialog.say('RCPT TO:<bob@example.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b@old.test')).toBe(
      '550 5.7.1 auth=alice@example.test ret=HDRS envid=x1 notify=SUCCESS,DELAY orcpt=rfc822;b@old.test bymode=N bytrace=T large soon',
    );
  });

  it('fails where it does what only a message can bear, when an expression has named it', async () => {
    const edit = 'require "editheader"; addheader "X-A" "1";';
    const { talk, log } = await start({
      at: { rcpt: "recipient == 'alice@example.test' ? lower('EDIT') : ''" },
      sieve: { edit },
    });
    const dialog = await talk();
    await dialog.say('MAIL FROM:<a@b.test>');
    expect(await dialog.say('RCPT TO:<alice@example.test>')).toMatch(/^451 4\.3\.5/);
    expect(log.find(({ script: name }) => name === 'edit')).toMatchObject({
      err: { message: expect.stringContaining('no header yet') },
    });
    expect(await dialog.say('RCPT TO:<bob@example.test>')).toMatch(/^250/);
  });

  it('is not asked for postmasters', async () => {
    const { talk } = await start({ at, sieve: { to } });
    const dialog = await talk();
    await dialog.say('MAIL FROM:<a@b.test>');
    expect(await dialog.say('RCPT TO:<postmaster>')).not.toContain('Nobody reads this');
  });
});

describe('variables', () => {
  it('last for the session, or from MAIL on for the transaction, and not for the next client of a proxy', async () => {
    const show = 'reject "550 5.7.1 [@{global.who}] [@{global.from}]";';
    const { talk } = await start({
      at: { connect: "'connect'", ehlo: "'ehlo'", mail: "'mail'", rcpt: "'rcpt'" },
      sieve: {
        connect: script('if environment :matches "remote-ip" "*" { set "global.who" "@{1}"; }'),
        ehlo: script('if environment :matches "vnd.starling.helo" "*" { set "global.who" "@{global.who} @{1}"; }'),
        mail: script('if envelope :matches "from" "?*" { set "global.from" "@{0}"; }'),
        rcpt: script(show),
      },
      sections: { smtp: { isTrustedPeer: true } },
    });
    const dialog = await talk();
    expect(await dialog.send('a@b.test', 'x@example.test')).toBe('550 5.7.1 [198.51.100.7 client.test] [a@b.test]');
    await dialog.say('RSET');
    expect(await dialog.send('', 'x@example.test')).toBe('550 5.7.1 [198.51.100.7 client.test] []');
    await dialog.say('RSET');
    await dialog.say('XCLIENT ADDR=203.0.113.1');
    await dialog.say('EHLO other.test');
    expect(await dialog.send('', 'x@example.test')).toBe('550 5.7.1 [203.0.113.1 other.test] []');
  });
});

describe('what scripts ask', () => {
  it('are other scripts, look-up lists, and what checks have said', async () => {
    const { talk, lookups } = await start({
      at: { mail: "'main'", rcpt: "'after'" },
      sieve: {
        main: script(
          'include :global "inner";\nif envelope :list "from" ["lookup:friends", "tag:example.test,2026:kin"] { stop; }',
        ),
        inner: script('if envelope :domain :list "from" "lookup:enemies" { reject "550 5.7.1 Not you"; }'),
        after: script('if environment :matches "vnd.starling.check.script:main" "*" { reject "550 5.7.1 it was @{1}"; }'),
      },
    });
    await lookups.set('enemies', [{ key: 'enemy.test', value: '' }]);
    const dialog = await talk();
    expect(await dialog.say('MAIL FROM:<a@Enemy.test>')).toBe('550 5.7.1 Not you');
    expect(await dialog.send('a@friend.test', 'alice@example.test')).toBe('550 5.7.1 it was mail kept');
  });
});

describe('a script that fails', () => {
  const busy = script('set "a" "x";\n'.repeat(3_000));
  const endless = script(`set "n" "0";\n${'include :global "busy";\n'.repeat(12)}`);
  const failing = { at: { mail: "'endless'" }, sieve: { endless, busy } };

  it('puts mail off, is logged with its place, counted, and harms nobody else', async () => {
    const { talk, log } = await start(failing);
    const before = await runs({ script: 'endless', result: 'failed' });
    const dialog = await talk();
    for (let i = 0; i < 3; i++) expect(await dialog.say('MAIL FROM:<a@b.test>')).toMatch(/^451 4\.3\.5/);
    expect(await runs({ script: 'endless', result: 'failed' })).toBe(before + 3);
    const lines = log.filter(({ msg }) => msg === 'a script for incoming mail has failed');
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatchObject({ stage: 'mail', script: 'endless', line: expect.any(Number), onFailure: 'defer' });
  });

  it('is passed over where that is set', async () => {
    const { talk, accepted } = await start({ ...failing, scripts: { onFailure: 'accept' } });
    const answer = await (await talk()).send('a@b.test', 'alice@example.test');
    expect(await accepted(answer)).toMatchObject({ checks: { 'script:endless': 'mail failed' } });
  });

  it('sends clients away at connect', async () => {
    const { talk } = await start({ at: { connect: "'endless'" }, sieve: { endless, busy } });
    expect((await talk()).greeting).toMatch(/^421 4\.3\.5/);
  });

  it('is one that waits too long', async () => {
    const lookups = { get: () => new Promise<never>(() => undefined) };
    const sieve = { slow: script('if envelope :list "from" "lookup:x" { discard; }') };
    const { talk, clock, log } = await start({ at: { mail: "'slow'" }, sieve, receiver: { lookups } });
    // The three seconds of a script are over at once.
    clock.setTimer = (delayMs, callback, options) => systemClock.setTimer(delayMs === 3_000 ? 0 : delayMs, callback, options);
    expect(await (await talk()).say('MAIL FROM:<a@b.test>')).toMatch(/^451 4\.3\.5/);
    expect(log.find(({ stage }) => stage === 'mail')).toMatchObject({ err: { message: expect.stringContaining('3000 ms') } });
  });

  it('is one that does what its stage can not, or is not there, where an expression has named it', async () => {
    const { talk, log } = await start({
      at: { ehlo: "helo == 'client.test' ? '' : helo == 'broken' ? string(int(helo)) : helo" },
      sieve: { redirects: script('redirect "alice@example.test";') },
    });
    const dialog = await talk();
    expect(await dialog.say('EHLO redirects')).toMatch(/^451 4\.3\.5/);
    expect(await dialog.say('EHLO nothing')).toMatch(/^451 4\.3\.5/);
    // So is one whose name can not be found out.
    expect(await dialog.say('EHLO broken')).toMatch(/^451 4\.3\.5/);
    expect(log.filter(({ stage }) => stage === 'ehlo').map(({ err }) => (err as Error).message)).toEqual([
      expect.stringContaining('redirect is not for this stage'),
      "there is no script 'nothing'",
    ]);
    // A name that a client has made is no label.
    expect(await runs({ stage: 'ehlo', script: 'nothing' })).toBe(0);
    expect(await runs({ stage: 'ehlo', script: '(none)', result: 'failed' })).toBeGreaterThanOrEqual(2);
  });
});

describe('settings that change', () => {
  it('hold from the next step of a session on', async () => {
    const { talk, change } = await start({ at: {}, sieve: { one: script('reject "One";'), two: script('reject "Two";') } });
    const dialog = await talk();
    expect(await dialog.say('MAIL FROM:<a@b.test>')).toMatch(/^250/);
    const sieve = { one: script('reject "One";'), two: script('reject "Two";') };
    await change({ at: { rcpt: "'one'" }, sieve });
    expect(await dialog.say('RCPT TO:<alice@example.test>')).toBe('550 5.7.1 One');
    await change({ at: { rcpt: "'two'" }, sieve });
    expect(await dialog.say('RCPT TO:<alice@example.test>')).toBe('550 5.7.1 Two');
    await change({ at: { rcpt: "'two'" }, sieve: { ...sieve, two: script('keep;') } });
    expect(await dialog.say('RCPT TO:<alice@example.test>')).toMatch(/^250/);
  });
});
