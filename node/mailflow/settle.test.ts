import { execFileSync } from 'node:child_process';
import { afterEach, describe, expect, it } from 'vitest';
import { parseMessage } from '../../protocols/message/index.js';
import type { MemoryStore } from '../../store/kv/index.js';
import { ClaimLost, NotAttempted } from '../../store/queue/index.js';
import type { OutcomeSettings } from './outcome-settings.js';
import type { SettleInput } from './settle.js';
import { type Bench, openBench } from './testing/outcomes.js';
import type { DeliveryReply } from './types.js';

const opened: Bench[] = [];

async function open(options: Parameters<typeof openBench>[0] = {}) {
  const bench = await openBench(options);
  opened.push(bench);
  return bench;
}

afterEach(async () => {
  for (const bench of opened.splice(0)) await bench.close();
});

const busy = { code: 451, enhanced: '4.3.2', text: 'Busy', host: 'mx.target.test' };
const deferred = { address: 'bob@target.test', verdict: 'deferred', reply: busy } as const;
const refused = {
  address: 'bob@target.test',
  verdict: 'failed',
  reply: { code: 550, enhanced: '5.1.1', text: 'No such user', host: 'mx.target.test' },
} as const;
const relayed = {
  address: 'bob@target.test',
  verdict: 'relayed',
  reply: { code: 250, enhanced: '2.0.0', text: 'Ok', host: 'mx.target.test' },
} as const;

const kind = 'remote';
const field = (bytes: Buffer, name: string) =>
  new RegExp(`^${name}: (.*)$`, 'm').exec(bytes.toString('utf8').replaceAll('\r', ''))?.[1];
const hasPython = (() => {
  try {
    execFileSync('python3', ['-c', 'import email']);
    return true;
  } catch {
    return false;
  }
})();

describe('the history of outcomes', () => {
  it('tells of each attempt, of reports and of the end, once through unknown commits', async () => {
    const bench = await open();
    const claimed = await bench.claimOne();
    const { id } = claimed.message;
    Object.assign((bench.kv as MemoryStore).faults, { conflict: 0.2, commitUnknownApplied: 0.3, commitUnknownLost: 0.2 });
    // What was committed after all has ended the claim.
    const settle = (input: SettleInput) => bench.settle(input).catch((error: unknown) => expect(error).toBeInstanceOf(ClaimLost));
    await settle({ claimed, verdicts: [deferred], kind, tls: 'TLSv1.3' });
    await settle({ claimed: await bench.claimAgain(id), verdicts: [refused], kind });
    (bench.kv as MemoryStore).faults.clear();
    const [report] = await bench.made();
    const { nodeId } = bench.node;
    expect(nodeId).toMatch(/^[0-9a-f]{32}$/);
    expect(await bench.historyOf(id)).toMatchObject([
      { kind: 'attempt', attempt: 1, epoch: 1, tls: 'TLSv1.3', results: [{ verdict: 'deferred', code: 451, host: busy.host }] },
      { kind: 'attempt', attempt: 2, results: [{ address: 'bob@target.test', verdict: 'failed', code: 550 }] },
      { kind: 'report', report: 'failed', id: report!.message.id, recipients: 1 },
      { kind: 'done' },
    ]);
    expect(await bench.historyOf(report!.message.id)).toMatchObject([
      { kind: 'accepted', from: '', recipients: ['sender@remote.test'], checks: { 'made-from': id } },
    ]);
  });

  it('tells of local deliveries', async () => {
    const bench = await open();
    await bench.account('alice@example.test');
    const local = { domain: 'example.test', isLocal: true, recipients: [{ address: 'alice@example.test' }] };
    const claimed = await bench.claimOne({ destinations: [local] });
    await bench.delivery.deliver({ claimed }, new AbortController().signal);
    expect(await bench.historyOf(claimed.message.id)).toMatchObject([
      { kind: 'attempt', isLocal: true, results: [{ address: 'alice@example.test', verdict: 'delivered', code: 250 }] },
      { kind: 'done' },
    ]);
  });
});

describe('schedules', () => {
  it('reports a delay at each of several ages, once, and gives up at the end', async () => {
    const schedule = { retryDelaysSeconds: [60], notifyAfterSeconds: [100, 250], expireAfterSeconds: 400 };
    const seen: unknown[] = [];
    const bench = await open({
      outcomes: {
        schedules: new Map([['quick', schedule]]),
        scheduleFor: (facts) => {
          seen.push([facts.notify_num, facts.rcpt_domain, facts.last_error, facts.retry_num]);
          return 'quick';
        },
      },
    });
    let claimed = await bench.claimOne();
    const { id } = claimed.message;
    for (let attempt = 0; attempt < 20; attempt++) {
      const { isMessageDone } = await bench.settle({ claimed, verdicts: [deferred], kind });
      if (isMessageDone) break;
      claimed = await bench.claimAgain(id);
    }
    const events = await bench.historyOf(id);
    expect(events.filter((event) => event.kind === 'report').map((event) => event.report)).toEqual([
      'delayed',
      'delayed',
      'failed',
    ]);
    const attempts = events.filter((event) => event.kind === 'attempt').length;
    expect(attempts).toBeGreaterThanOrEqual(6);
    expect(attempts).toBeLessThanOrEqual(9);
    expect(events.at(-1)).toEqual({ kind: 'done' });
    expect(seen[0]).toEqual([0, 'target.test', 'temporary', 0]);
    const reports = await bench.made(id);
    expect(reports.map(({ bytes }) => field(bytes, 'Action'))).toEqual(['delayed', 'delayed', 'failed']);
    expect(field(reports[0]!.bytes, 'Will-Retry-Until')).toBeDefined();
  });

  it('is chosen by the same facts as where mail goes', async () => {
    const seen: unknown[] = [];
    const scheduleFor: OutcomeSettings['scheduleFor'] = ({ last_error, last_status, size }) => {
      seen.push([last_error, last_status, size]);
      return 'default';
    };
    const bench = await open({ outcomes: { scheduleFor } });
    const replies: DeliveryReply[] = [
      { code: 0, enhanced: '4.4.2', text: 'The peer closed the connection' },
      { code: 0, enhanced: '4.4.2', text: 'Timeout: no reply within 300 s' },
      { code: 0, enhanced: '4.7.1', text: 'Held back by a limit on outgoing mail' },
      { code: 451, enhanced: '4.4.1', text: 'later' },
    ];
    for (const reply of replies) {
      const claimed = await bench.claimOne({ text: 'Return-Path: <a@b.test>\r\nSubject: x\r\n\r\n', relayOffsetBytes: 25 });
      await bench.settle({ claimed, verdicts: [{ ...deferred, reply }], kind });
    }
    expect(seen).toEqual([
      ['connection', 0, 14],
      ['timeout', 0, 14],
      ['rate', 0, 14],
      ['temporary', 451, 14],
    ]);
  });

  it('holds for what was deferred in an earlier step of the same delivery', async () => {
    const schedule = { retryDelaysSeconds: [5_000], notifyAfterSeconds: [] };
    const bench = await open({ outcomes: { schedules: new Map([['slow', schedule]]), scheduleFor: () => 'slow' } });
    const recipients = ['bob', 'eve'].map((name) => ({ address: `${name}@target.test` }));
    const claimed = await bench.claimOne({ destinations: [{ domain: 'target.test', isLocal: false, recipients }] });
    await bench.settle({ claimed, verdicts: [deferred], kind, keepClaim: true });
    const nowSeconds = bench.clock.nowMs() / 1000;
    await bench.settle({ claimed, verdicts: [{ ...relayed, address: 'eve@target.test' }], kind });
    expect((await bench.queue.show(claimed.message.id))!.destinations[0]!.dueAtSeconds).toBeGreaterThan(nowSeconds + 4_000);
  });

  it('says nothing of delays to who has not asked, and nothing at all with NEVER', async () => {
    for (const [notify, expected] of [
      [['FAILURE'], ['failed']],
      [['NEVER'], []],
      [['DELAY'], ['delayed']],
      [['SUCCESS'], []],
    ] as const) {
      const bench = await open({ settings: { delayReportAfterSeconds: 10, retryDelaysSeconds: [100] } });
      const recipients = [{ address: 'bob@target.test', notify: [...notify] }];
      const claimed = await bench.claimOne({ destinations: [{ domain: 'target.test', isLocal: false, recipients }] });
      const { id } = claimed.message;
      await bench.settle({ claimed, verdicts: [deferred], kind });
      await bench.settle({ claimed: await bench.claimAgain(id), verdicts: [deferred], kind });
      await bench.settle({ claimed: await bench.claimAgain(id), verdicts: [refused], kind });
      expect((await bench.made()).map(({ bytes }) => field(bytes, 'Action'))).toEqual(expected);
    }
  });
});

describe('RFC 2852', () => {
  it('returns what is late, without another attempt, with 5.4.7', async () => {
    const bench = await open();
    const untilMs = bench.clock.nowMs() + 30_000;
    const deliverBy = { untilMs, mode: 'return', isTraced: false } as const;
    const claimed = await bench.claimOne({ deliverBy });
    await bench.settle({ claimed, verdicts: [deferred], kind });
    const late = await bench.claimAgain(claimed.message.id);
    expect(bench.clock.nowMs()).toBeLessThan(untilMs + 3_000);
    // No host of the domain exists: an attempt would say so.
    await bench.delivery.deliver({ claimed: late }, new AbortController().signal);
    const [report, ...more] = await bench.made();
    expect(more).toEqual([]);
    expect(field(report!.bytes, 'Status')).toBe('5.4.7');
    expect(field(report!.bytes, 'Deliver-By-Date')).toBeDefined();
    expect(field(report!.bytes, 'Remote-MTA')).toBeUndefined();
  });

  it('tells that it is late and goes on, and traces the relay', async () => {
    const bench = await open();
    const untilMs = bench.clock.nowMs() + 30_000;
    const claimed = await bench.claimOne({ deliverBy: { untilMs, mode: 'notify', isTraced: true } });
    const { id } = claimed.message;
    await bench.settle({ claimed, verdicts: [deferred], kind });
    await bench.settle({ claimed: await bench.claimAgain(id), verdicts: [deferred], kind });
    await bench.settle({ claimed: await bench.claimAgain(id), verdicts: [relayed], kind, isDeliverByPassedOn: true });
    const made = await bench.made();
    expect(made.map(({ bytes }) => [field(bytes, 'Action'), field(bytes, 'Status')])).toEqual([
      ['delayed', '4.4.7'],
      ['relayed', '2.0.0'],
    ]);
  });
});

describe('reports', () => {
  it('return only the header of what must not be seen, and must not be seen themselves', async () => {
    const bench = await open();
    const claimed = await bench.claimOne({ requiresTls: true, ret: 'FULL', text: 'Subject: x\r\n\r\nsecret\r\n' });
    await bench.settle({ claimed, verdicts: [refused], kind });
    const [report] = await bench.made();
    expect(report!.message.requiresTls).toBe(true);
    expect(report!.bytes.includes('secret')).toBe(false);
  });

  it('stop when one sender outside would get too many, and never for users', async () => {
    const bench = await open({ outcomes: { maxReportsPerSenderPerHour: 2 } });
    for (let i = 0; i < 4; i++) await bench.settle({ claimed: await bench.claimOne(), verdicts: [refused], kind });
    expect(await bench.made()).toHaveLength(2);
    const source = { protocol: 'submission', accountId: 'a'.repeat(16) } as const;
    for (let i = 0; i < 4; i++) await bench.settle({ claimed: await bench.claimOne({ source }), verdicts: [refused], kind });
    expect(await bench.made()).toHaveLength(6);
  });

  it('say that an operator has ended it, and when it was tried last', async () => {
    const bench = await open();
    const claimed = await bench.claimOne();
    const reply = { code: 0, enhanced: '5.7.0', text: 'Cancelled by the operator' };
    await bench.delivery.putOff({ claimed }, new NotAttempted('failed', reply));
    const [report] = await bench.made();
    expect(field(report!.bytes, 'Status')).toBe('5.7.0');
    expect(field(report!.bytes, 'Last-Attempt-Date')).toBeUndefined();
    expect(report!.bytes.toString()).toContain('Cancelled by the operator');
  });

  it('are never made about reports', async () => {
    const bench = await open();
    await bench.settle({ claimed: await bench.claimOne({ from: '' }), verdicts: [refused], kind });
    expect(await bench.made()).toEqual([]);
  });

  it.runIf(hasPython)('are what Python reads as reports, in every language and of every kind', async () => {
    const bench = await open({
      outcomes: { reportLanguages: ['ja', 'pl', 'de', 'fr', 'pt'] },
      settings: { delayReportAfterSeconds: 0 },
    });
    const notify = ['SUCCESS', 'FAILURE', 'DELAY'] as ('SUCCESS' | 'FAILURE' | 'DELAY')[];
    const recipients = [
      { address: 'bob@target.test', orcpt: 'rfc822;old+x@remote.test', notify },
      { address: 'bøb@target.test', orcpt: 'utf-8;bøb@target.test', notify },
    ];
    const destinations = [{ domain: 'target.test', isLocal: false, recipients }];
    for (const verdict of [deferred, refused, relayed]) {
      const claimed = await bench.claimOne({ destinations, envid: 'env 17', isUtf8: true, body: '8BITMIME' });
      const verdicts = recipients.map(({ address }) => ({ ...verdict, address }));
      await bench.settle({ claimed, verdicts, kind });
    }
    const script = `
import sys, json, email, email.policy
out = []
for raw in json.load(sys.stdin):
    m = email.message_from_bytes(bytes.fromhex(raw), policy=email.policy.default)
    parts = list(m.iter_parts())
    status = email.message_from_bytes(b'', policy=email.policy.default)
    blocks = parts[1].get_payload()
    if isinstance(blocks, list): blocks = [dict(b.items()) for b in blocks]
    out.append([m.get_content_type(), m['subject'], m['auto-submitted'], [p.get_content_type() for p in parts],
      parts[0].get_content(), [p.defects == [] for p in parts], str(m.get_param('report-type')), len(m.defects)])
print(json.dumps(out))`;
    const made = (await bench.made()).filter(({ message }) => message.from === '');
    expect(made).toHaveLength(3);
    const input = JSON.stringify(made.map(({ bytes }) => bytes.toString('hex')));
    const read = JSON.parse(execFileSync('python3', ['-c', script], { input }).toString()) as unknown[][];
    expect(read.map(([type, , auto, , , , report, defects]) => [type, auto, report, defects])).toEqual(
      Array(3).fill(['multipart/report', 'auto-replied', 'delivery-status', 0]),
    );
    expect(read.map(([, subject]) => subject)).toEqual([
      'メールの配送が遅れています(再試行中)',
      'メールを配送できませんでした',
      'メール配送完了のお知らせ',
    ]);
    const [, failed] = read;
    expect(failed![3]).toEqual(['text/plain', 'message/global-delivery-status', 'message/global']);
    expect(failed![4]).toContain('Ihre Nachricht konnte einem oder mehreren Empfängern');
    expect(failed![4]).toContain('bøb@target.test');
    for (const { bytes } of made) {
      expect(parseMessage(bytes).children).toHaveLength(3);
      for (const line of bytes.toString('latin1').split('\r\n')) expect(line.length).toBeLessThan(998);
    }
  });
});
