/**
 * mbsync in both directions while flags change, mail comes and mail goes at both ends, broken off five times: the client killed thrice, the node killed twice. At
 * the end both ends hold exactly what each was told. `STARLING_MBSYNC_MESSAGES` says how many messages (default 2,000).
 */
import { existsSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ImapMeter } from '../harness/imap-meter.js';
import { appendCommand, corpusMessage } from '../harness/mail-corpus.js';
import { MbsyncMirror } from '../harness/mbsync-mirror.js';
import { machineHas } from '../harness/needs.js';
import { NodeProcess } from '../harness/node-process.js';
import { TcpProxy } from '../harness/tcp-proxy.js';

const able = machineHas('mbsync', 'openssl');
const messageCount = Number(process.env['STARLING_MBSYNC_MESSAGES'] ?? 2_000);
const newAtEachEnd = 20;
const batch = 250;
const user = 'alice@example.test';
/** Letters of the Maildir for the flags that both ends know. */
const letters: Record<string, string> = { S: '\\Seen', F: '\\Flagged', R: '\\Answered', D: '\\Draft' };

/** Message-ID to its flags, in order and joined. */
type Contents = Map<string, string>;

const flagsText = (flags: Iterable<string>) => [...flags].sort().join(' ');
const range = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => from + index);
const idOf = (index: number) => `<c${index}@outside.test>`;
const indexOf = (id: string) => Number(/<c(\d+)@/.exec(id)?.[1]);

/** What is to become of a message: the same rule for the test's own record and for what it does at either end. */
const isFlaggedAtServer = (index: number) => index % 3 === 0;
const isAnsweredInMaildir = (index: number) => index % 3 === 1;
const isUnseenAtServer = (index: number) => index % 5 === 2;
const isRemovedAtServer = (index: number) => index % 50 === 7;
const isRemovedInMaildir = (index: number) => index % 50 === 9;

function expectedContents(): Contents {
  const expected: Contents = new Map();
  for (const index of range(0, messageCount + 2 * newAtEachEnd)) {
    const flags = new Set(corpusMessage(index).flags.filter((flag) => Object.values(letters).includes(flag)));
    if (index >= messageCount + newAtEachEnd) {
      expected.set(idOf(index), '\\Seen'); // made in the Maildir
      continue;
    }
    if (index < messageCount) {
      if (isRemovedAtServer(index) || isRemovedInMaildir(index)) continue;
      if (isFlaggedAtServer(index)) flags.add('\\Flagged');
      if (isAnsweredInMaildir(index)) flags.add('\\Answered');
      if (isUnseenAtServer(index)) flags.delete('\\Seen');
    }
    expected.set(idOf(index), flagsText(flags));
  }
  return expected;
}

/** The files of a Maildir with their Message-IDs. */
function maildirFiles(folder: string): { path: string; name: string; id: string }[] {
  return ['cur', 'new'].flatMap((part) => {
    const path = join(folder, part);
    if (!existsSync(path)) return [];
    return readdirSync(path).map((name) => {
      const id = /^Message-ID: (<[^>]+>)/im.exec(readFileSync(join(path, name), 'latin1'))?.[1];
      if (id === undefined) throw new Error(`no Message-ID in ${name}`);
      return { path: join(path, name), name, id };
    });
  });
}

const lettersOf = (name: string) => /:2,([A-Za-z]*)$/.exec(name)?.[1] ?? '';

function maildirContents(folder: string): Contents {
  const contents: Contents = new Map();
  for (const { name, id } of maildirFiles(folder)) {
    if (contents.has(id)) throw new Error(`${id} is twice in the Maildir`);
    contents.set(id, flagsText([...lettersOf(name)].flatMap((letter) => letters[letter] ?? [])));
  }
  return contents;
}

/** Adds a letter to the flags of some messages, as a mail reader does: by renaming them into `cur`. */
function markInMaildir(folder: string, letter: string, isMeant: (index: number) => boolean): void {
  for (const { path, name, id } of maildirFiles(folder)) {
    if (!isMeant(indexOf(id)) || lettersOf(name).includes(letter)) continue;
    const flags = [...lettersOf(name), letter].sort().join('');
    renameSync(path, join(folder, 'cur', `${name.replace(/:2,.*$/, '')}:2,${flags}`));
  }
}

describe.skipIf(!able)('mbsync in both directions, broken off', () => {
  let node: NodeProcess;
  let mirror: MbsyncMirror;
  let interruptions = 0;
  const login = () => ({ port: node.port('imaps'), user, password: node.password });

  beforeAll(async () => {
    node = await NodeProcess.start({ settings: '[log]\nlevel = "warn"\n' });
    mirror = new MbsyncMirror(user, node.password, 'All');
  });
  afterAll(async () => {
    mirror?.remove();
    await node?.remove();
  });

  async function atServer(work: (meter: ImapMeter) => Promise<void>): Promise<void> {
    const meter = await ImapMeter.connect(login());
    try {
      await work(meter);
    } finally {
      await meter.close();
    }
  }

  const file = (from: number, to: number) =>
    atServer(async (meter) => {
      for (let at = from; at < to; at += batch) {
        const messages = range(at, Math.min(to, at + batch)).map((index) => corpusMessage(index));
        await meter.command(appendCommand('INBOX', messages));
      }
    });

  /** UID to message: mail was filed in order, so that the UID tells the number, but for what came over from the Maildir. */
  async function serverContents(): Promise<{ contents: Contents; uids: Map<number, number> }> {
    const contents: Contents = new Map();
    const uids = new Map<number, number>();
    await atServer(async (meter) => {
      await meter.command('EXAMINE INBOX');
      const { text } = await meter.command('FETCH 1:* (UID FLAGS BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])', true);
      const one = /^\* \d+ FETCH \(UID (\d+) FLAGS \(([^)]*)\)[^\r\n]*\r\nMessage-ID: (<[^>]+>)/gim;
      for (const [, uid, flags, id] of text.matchAll(one)) {
        if (contents.has(id!)) throw new Error(`${id} is twice in the inbox`);
        const known = flags!.split(' ').filter((flag) => Object.values(letters).includes(flag));
        contents.set(id!, flagsText(known));
        uids.set(indexOf(id!), Number(uid));
      }
    });
    return { contents, uids };
  }

  /**
   * Lets mbsync run until `isFarEnough`, then strikes. All that it says passes through here, and nothing more once it is far enough: however slow this process may be, it
   * is not through before.
   */
  async function interrupted(whom: 'client' | 'node', isFarEnough: () => boolean): Promise<void> {
    const proxy = await TcpProxy.start({ host: '127.0.0.1', port: node.port('imaps') });
    try {
      const { child, ended } = await mirror.begin(proxy.port);
      const reached = new Promise<void>((resolve) => {
        proxy.onClientBytes(() => {
          if (!isFarEnough()) return undefined;
          resolve();
          return 'swallow';
        });
      });
      const isThrough = await Promise.race([reached.then(() => false), ended.then(() => true)]);
      expect(isThrough, 'mbsync was through before it could be broken off').toBe(false);
      if (whom === 'client') child.kill('SIGKILL');
      else await node.kill();
      proxy.cutAll();
      const code = await ended;
      expect(code, 'mbsync ended as if nothing had been').not.toBe(0);
      if (whom === 'node') await node.start();
      interruptions++;
    } finally {
      await proxy.stop();
    }
  }

  const filesThere = () =>
    ['cur', 'new'].reduce((sum, part) => {
      const path = join(mirror.maildir('INBOX'), part);
      return sum + (existsSync(path) ? readdirSync(path).length : 0);
    }, 0);
  /** mbsync writes down each step that it has taken. */
  const journalBytes = () => {
    const path = join(mirror.maildir('INBOX'), '.mbsyncstate.journal');
    return existsSync(path) ? statSync(path).size : 0;
  };
  const journalGrows = (bytes: number) => () => journalBytes() > bytes;

  it('leaves both ends equal', { timeout: 600_000 + messageCount * 120 }, async () => {
    await file(0, messageCount);
    await interrupted('client', () => filesThere() > messageCount / 5);
    await interrupted('node', () => filesThere() > messageCount / 2);
    await mirror.pull(node.port('imaps'));
    expect(filesThere()).toBe(messageCount);

    const { uids } = await serverContents();
    const maildir = mirror.maildir('INBOX');
    const uidsOf = (isMeant: (index: number) => boolean) =>
      [...uids].flatMap(([index, uid]) => (isMeant(index) ? [uid] : [])).join(',');
    await atServer(async (meter) => {
      await meter.command('SELECT INBOX');
      await meter.command(`UID STORE ${uidsOf(isFlaggedAtServer)} +FLAGS.SILENT (\\Flagged)`);
      await meter.command(`UID STORE ${uidsOf(isUnseenAtServer)} -FLAGS.SILENT (\\Seen)`);
    });
    markInMaildir(maildir, 'R', isAnsweredInMaildir);
    await interrupted('client', journalGrows(messageCount));
    await interrupted('node', journalGrows(messageCount * 2));

    await atServer(async (meter) => {
      await meter.command('SELECT INBOX');
      await meter.command(`UID STORE ${uidsOf(isRemovedAtServer)} +FLAGS.SILENT (\\Deleted)`);
      await meter.command(`UID EXPUNGE ${uidsOf(isRemovedAtServer)}`);
    });
    markInMaildir(maildir, 'T', isRemovedInMaildir);
    await file(messageCount, messageCount + newAtEachEnd);
    for (const index of range(messageCount + newAtEachEnd, messageCount + 2 * newAtEachEnd)) {
      const text = corpusMessage(index).bytes.toString('latin1').replaceAll('\r\n', '\n');
      writeFileSync(join(maildir, 'cur', `${1_700_000_000 + index}.made.here:2,S`), text, 'latin1');
    }
    await interrupted('client', journalGrows(200));

    await mirror.pull(node.port('imaps'));
    await mirror.pull(node.port('imaps')); // what the broken-off ones have left for the next time
    const server = (await serverContents()).contents;
    const near = maildirContents(maildir);
    const expected = expectedContents();
    const differing = [...expected].filter(([id, flags]) => server.get(id) !== flags || near.get(id) !== flags);
    expect(differing.slice(0, 10).map(([id, flags]) => ({ id, flags, server: server.get(id), near: near.get(id) }))).toEqual([]);
    expect([server.size, near.size]).toEqual([expected.size, expected.size]);
    expect(interruptions).toBe(5);
    const before = mirror.contents();
    await mirror.pull(node.port('imaps'));
    expect(mirror.contents()).toEqual(before);
  });
});
