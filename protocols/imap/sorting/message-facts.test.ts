import { describe, expect, it } from 'vitest';
import { summarize } from '../../message/index.js';
import { keyedHash, MessageFacts, normalizedId } from './message-facts.js';

const hash = keyedHash({ float: () => 0, bytes: (length) => Buffer.alloc(length, 7) });

function factsOf(headers: readonly string[]): MessageFacts {
  const facts = new MessageFacts(hash);
  headers.forEach((header, i) => {
    facts.add({ uid: (i + 1) * 10, receivedAtMs: 86_400_000 * i, summary: summarize(Buffer.from(`${header}\r\n\r\nx`)) });
  });
  return facts;
}

const referencesOf = (facts: MessageFacts, slot: number): number[] => {
  const target = new Float64Array(facts.referenceCountAt(slot));
  facts.copyReferences(slot, target, 0);
  return [...target];
};

describe('facts of messages', () => {
  const facts = factsOf([
    'Message-ID: <a@x>\r\nSubject: Lunch\r\nFrom: Zoe <z@x>\r\nDate: Tue, 2 Jan 2024 23:00:00 -0500',
    'Message-ID: <b@x>\r\nIn-Reply-To: <a@x> <c@x>\r\nSubject: Re: lunch\r\nFrom: Z@y',
    'References: <"a"@x> <b@x>\r\nIn-Reply-To: <z@x>\r\nTo: Team: a@x;',
  ]);

  it('are found by UID', () => {
    expect([...facts.slotsOf(Uint32Array.of(5, 10, 20, 25, 30, 40))]).toEqual([-1, 0, 1, -1, 2, -1]);
    expect(facts.lastUid).toBe(30);
  });

  it('have dates as the sender wrote them, or of arrival', () => {
    expect(facts.sentSecondsAt(0)).toBe(Date.UTC(2024, 0, 3, 4) / 1000);
    expect(facts.sentDayOf(10)).toBe(Date.UTC(2024, 0, 2) / 86_400_000);
    expect([facts.sentSecondsAt(1), facts.sentDayOf(20), facts.sentDayOf(15), facts.sentDayOf(40)]).toEqual([
      86_400,
      1,
      undefined,
      undefined,
    ]);
  });

  it('have texts without case', () => {
    expect(facts.textAt('subject', 0)).toBe(facts.textAt('subject', 1));
    expect([facts.isReplyAt(0), facts.isReplyAt(1)]).toEqual([0, 1]);
    expect(facts.textAt('from', 0)).toBe(facts.textAt('from', 1));
    expect(facts.addresses.text(facts.textAt('displayFrom', 0))).toBe('ZOE');
    expect(facts.addresses.text(facts.textAt('displayFrom', 1))).toBe('Z@Y');
    expect(facts.addresses.text(facts.textAt('displayTo', 2))).toBe('TEAM');
    expect(facts.textAt('subject', 2)).toBe(0);
  });

  it('know whom a message answers', () => {
    expect(referencesOf(facts, 1)).toEqual([facts.idAt(0)]);
    expect(referencesOf(facts, 2)).toEqual([facts.idAt(0), facts.idAt(1)]);
    expect(facts.idAt(2)).toBe(0);
    expect(normalizedId('"a\\"b"@x')).toBe('a"b@x');
    expect(normalizedId('"open@x')).toBe('"open@x');
  });

  it('lose what is gone, texts included', () => {
    const kept = facts.retained(Uint32Array.of(20, 30));
    expect([...kept.uids]).toEqual([20, 30]);
    expect(kept.subjects.text(kept.textAt('subject', 0))).toBe('LUNCH');
    expect(referencesOf(kept, 1)).toEqual(referencesOf(facts, 2));
    expect(kept.addresses.size).toBeLessThan(facts.addresses.size);
    kept.add({ uid: 40, receivedAtMs: 0, summary: undefined });
    expect([kept.size, kept.textAt('subject', 2), kept.referenceCountAt(2)]).toEqual([3, 0, 0]);
  });
});
