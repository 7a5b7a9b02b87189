/**
 * TRAPS 28 and 30, as ImapTest looks at a server: several sessions on two nodes change one mailbox at random, each sending several commands in one packet. Each
 * client keeps its own view by the responses alone, and holds the server to it.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { systemClock } from '../../ops/telemetry/index.js';
import { openMemoryStore } from '../../store/kv/index.js';
import { TestClient } from './testing/client.js';
import { accountIdOf, startTestServer } from './testing/server.js';

const alice = accountIdOf('alice');
type Dialect = 'plain' | 'qresync' | 'uidonly';

interface Step {
  /** Names messages by number: only in front of everything that may tell of expunges. */
  numbers: boolean;
  mayExpunge: boolean;
  text: (pick: number, count: number) => string;
}

const steps: Record<string, Step> = {
  fetch: { numbers: true, mayExpunge: false, text: () => 'FETCH 1:* (UID FLAGS)' },
  fetchOne: { numbers: true, mayExpunge: false, text: (pick, count) => `FETCH ${1 + (pick % count)} (FLAGS UID)` },
  store: { numbers: true, mayExpunge: false, text: (pick, count) => `STORE ${1 + (pick % count)} +FLAGS (\\Deleted)` },
  unstore: { numbers: true, mayExpunge: false, text: (pick, count) => `STORE 1:${1 + (pick % count)} -FLAGS (\\Seen)` },
  search: { numbers: true, mayExpunge: false, text: () => 'SEARCH NOT DELETED' },
  copy: { numbers: true, mayExpunge: true, text: (pick, count) => `COPY ${1 + (pick % count)} INBOX` },
  move: { numbers: true, mayExpunge: true, text: (pick, count) => `MOVE ${1 + (pick % count)} Trash` },
  uidFetch: { numbers: false, mayExpunge: true, text: () => 'UID FETCH 1:* (FLAGS)' },
  uidStore: { numbers: false, mayExpunge: true, text: (pick) => `UID STORE 1:${1 + pick} ${pick % 2 ? '+' : '-'}FLAGS (\\Seen)` },
  uidDelete: { numbers: false, mayExpunge: true, text: (pick) => `UID STORE ${1 + pick} +FLAGS (\\Deleted)` },
  uidSearch: { numbers: false, mayExpunge: true, text: () => 'UID SEARCH SEEN' },
  uidMove: { numbers: false, mayExpunge: true, text: (pick) => `UID MOVE ${1 + pick} Trash` },
  uidExpunge: { numbers: false, mayExpunge: true, text: (pick) => `UID EXPUNGE 1:${1 + pick}` },
  expunge: { numbers: false, mayExpunge: true, text: () => 'EXPUNGE' },
  noop: { numbers: false, mayExpunge: true, text: () => 'NOOP' },
  append: { numbers: false, mayExpunge: true, text: () => 'APPEND INBOX {2+}\r\nx\n' },
};

class View {
  /** UIDs by number - 1; undefined where only the number is known. */
  uids: (number | undefined)[] = [];
  count = 0;
  readonly flags = new Map<number, string>();
  #tags = 0;

  constructor(
    readonly client: TestClient,
    readonly dialect: Dialect,
  ) {}

  /** Sends all in one packet and follows the answers. */
  async burst(commands: readonly { text: string; mayExpunge: boolean }[]): Promise<void> {
    const tags = commands.map(() => `p${++this.#tags}`);
    this.client.send(commands.map(({ text }, i) => `${tags[i]} ${text}\r\n`).join(''));
    for (const [i, command] of commands.entries()) {
      const lines = await this.client.until(tags[i]!);
      expect(lines.pop()).toMatch(/^p\d+ (OK|NO \[(EXPUNGEISSUED|NONEXISTENT)\])/);
      for (const line of lines) this.#hear(line, command);
    }
  }

  #hear(line: string, command: { text: string; mayExpunge: boolean }): void {
    const [, first, kind, rest] = /^\* (\d+) (EXISTS|EXPUNGE|FETCH|UIDFETCH)(.*)$/.exec(line) ?? [];
    const number = Number(first);
    const vanished = /^\* VANISHED ([\d:,]+)$/.exec(line);
    if (kind === 'EXISTS') {
      expect(number).toBeGreaterThanOrEqual(this.count);
      this.count = number;
      while (this.uids.length < number) this.uids.push(undefined);
    } else if (kind === 'EXPUNGE' || vanished) {
      expect([command.text, command.mayExpunge]).toEqual([command.text, true]);
      expect(kind === 'EXPUNGE').toBe(this.dialect === 'plain');
      if (kind === 'EXPUNGE') this.#expunge(number);
      else for (const range of vanished![1]!.split(',')) this.#vanish(range);
    } else if (kind === 'FETCH') {
      expect(this.dialect).not.toBe('uidonly');
      this.#fetched(number, Number(/UID (\d+)/.exec(rest!)![1]), rest!);
    } else if (kind === 'UIDFETCH') {
      expect(this.dialect).toBe('uidonly');
      this.#flagsOf(number, rest!);
    }
  }

  #expunge(number: number): void {
    expect(number).toBeLessThanOrEqual(this.count);
    const [uid] = this.uids.splice(number - 1, 1);
    if (uid !== undefined) this.flags.delete(uid);
    this.count--;
  }

  #vanish(range: string): void {
    const [from, to] = range.split(':').map(Number);
    for (let uid = from!; uid <= (to ?? from!); uid++) {
      this.count--;
      this.flags.delete(uid);
      if (this.dialect === 'uidonly') this.uids.pop();
      else {
        // Where nobody has told which number is which message, the numbers are learned anew.
        const at = this.uids.indexOf(uid);
        if (at >= 0) this.uids.splice(at, 1);
        else this.uids = Array.from({ length: this.count }, () => undefined);
      }
    }
    expect(this.count).toBeGreaterThanOrEqual(0);
  }

  #fetched(number: number, uid: number, rest: string): void {
    expect(number).toBeLessThanOrEqual(this.count);
    if (this.uids[number - 1] !== undefined) expect(uid).toBe(this.uids[number - 1]);
    this.uids[number - 1] = uid;
    const known = this.uids.filter((one) => one !== undefined);
    expect(known).toEqual([...known].sort((a, b) => a - b));
    this.#flagsOf(uid, rest);
  }

  #flagsOf(uid: number, rest: string): void {
    const flags = /FLAGS \(([^)]*)\)/.exec(rest);
    if (flags)
      this.flags.set(
        uid,
        flags[1]!
          .toLowerCase()
          .split(' ')
          .filter((flag) => flag !== '' && flag !== '\\recent')
          .sort()
          .join(' '),
      );
  }
}

interface Burst {
  session: number;
  steps: { name: string; pick: number }[];
}

const burst: fc.Arbitrary<Burst> = fc.record({
  session: fc.nat(3),
  steps: fc.array(fc.record({ name: fc.constantFrom(...Object.keys(steps)), pick: fc.nat(30) }), { minLength: 1, maxLength: 5 }),
});

/** What a client may send at once (RFC 9051 5.5): numbers only as long as none of it can change their meaning. */
function packetOf(view: View, { steps: wanted }: Burst): { text: string; mayExpunge: boolean }[] {
  let numbersHold = view.dialect !== 'uidonly' && view.count > 0;
  const packet: { text: string; mayExpunge: boolean }[] = [];
  for (const { name, pick } of wanted) {
    const step = steps[name]!;
    if (step.numbers && !numbersHold) continue;
    packet.push({ text: step.text(pick, view.count), mayExpunge: step.mayExpunge });
    if (step.mayExpunge) numbersHold = false;
  }
  return packet;
}

async function play(bursts: readonly Burst[]): Promise<void> {
  const kv = openMemoryStore({ clock: systemClock });
  const servers = [await startTestServer({ kv }), await startTestServer({ kv })];
  try {
    for (let i = 0; i < 5; i++) await servers[0]!.deliver('alice', 'INBOX', `Subject: ${i}\r\n\r\n`);
    const dialects: Dialect[] = ['plain', 'plain', 'qresync', 'uidonly'];
    const views = await Promise.all(
      dialects.map(async (dialect, i) => new View(await TestClient.login(servers[i % 2]!.port), dialect)),
    );
    for (const view of views) {
      if (view.dialect !== 'plain') await view.burst([{ text: `ENABLE ${view.dialect}`, mayExpunge: false }]);
      await view.burst([{ text: 'SELECT INBOX', mayExpunge: false }]);
    }
    const follow = async (view: View, session: number) => {
      for (const one of bursts) {
        const packet = one.session === session ? packetOf(view, one) : [];
        if (packet.length > 0) await view.burst(packet);
      }
    };
    await Promise.all(views.map(follow));
    const inbox = (await servers[0]!.mail.mailboxByPath(alice, ['INBOX']))!.mailbox.id;
    const truth = await servers[0]!.mail.entries(alice, inbox);
    for (const view of views) {
      await view.burst([{ text: 'NOOP', mayExpunge: true }]);
      expect(view.count).toBe(truth.length);
      // What was told as news, before it is asked for.
      for (const entry of truth) {
        const told = view.flags.get(entry.uid);
        const flags = [...entry.keywords.map((keyword) => keyword.replace('$', '\\')), ...(entry.isDeleted ? ['\\deleted'] : [])];
        if (told !== undefined) expect([entry.uid, told]).toEqual([entry.uid, flags.sort().join(' ')]);
      }
      await view.burst([{ text: 'UID FETCH 1:* (FLAGS)', mayExpunge: true }]);
      expect([...view.flags.keys()].sort((a, b) => a - b)).toEqual(truth.map(({ uid }) => uid));
      if (view.dialect !== 'uidonly') expect(view.uids).toEqual(truth.map(({ uid }) => uid));
      view.client.close();
    }
  } finally {
    await Promise.all(servers.map((server) => server.close()));
    await kv.close();
  }
}

describe('pipelined commands of several sessions', () => {
  it('leave each client with a true view', async () => {
    await fc.assert(fc.asyncProperty(fc.array(burst, { minLength: 12, maxLength: 40 }), play), { numRuns: 10 });
  });
});
