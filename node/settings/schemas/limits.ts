/** Section `limits`: how much of something, counted over all nodes. */
import { z } from 'zod';
import { type FactName, stageSetting, stageVariables } from '../../expressions/index.js';

const variables: readonly FactName[] = [
  ...stageVariables.connect,
  ...stageVariables.ehlo,
  ...stageVariables.mail,
  ...stageVariables.rcpt,
];

const name = z.string().regex(/^[a-z0-9][a-z0-9.-]{0,63}$/, 'lower-case letters, digits, dots and hyphens');
const match = stageSetting('bool', { variables, default: true, fallback: false, description: 'Whom it is for' });
const key = (standard: string, description: string) => stageSetting('string', { variables, default: standard, description });
const reply = stageSetting('string', { variables, default: "''", description: "What is said; '' for the usual" });
const count = (standard: number, description: string) =>
  stageSetting('int', { variables, default: standard, min: 0, max: 1_000_000_000_000, description });

const uniqueNames = (rules: readonly { name: string }[]) => new Set(rules.map((rule) => rule.name)).size === rules.length;
const twice = 'two have the same name';

const rate = z.strictObject({
  name,
  stage: z.enum(['connect', 'auth', 'mail', 'rcpt', 'data']).describe('Where it is counted'),
  match,
  key: key('network_of(remote_ip)', "What is counted apart; '' counts nothing"),
  amount: count(1, 'What one time counts for, such as size'),
  count: count(100, 'So many in the period'),
  periodSeconds: z.int().min(1).max(86_400).describe('The period'),
  reply,
});

const concurrency = z.strictObject({
  name,
  stage: z.enum(['connect', 'auth']).describe('Connections, or sessions that have logged in'),
  match,
  key: key("authenticated_as == '' ? network_of(remote_ip) : authenticated_as", "What is counted apart; '' counts nothing"),
  max: count(20, 'So many at once'),
  reply,
});

const quota = z.strictObject({
  name,
  match,
  key: key("'all'", "What is counted apart: 'all', sender, sender_domain, rcpt_domain; '' counts nothing"),
  maxMessages: count(0, 'So many may wait; 0: any number'),
  maxBytes: count(0, 'So many octets may wait; 0: any number'),
});

export const limits = z.strictObject({
  rates: z.array(rate).max(50).refine(uniqueNames, twice).default([]).describe('So many of something within a time'),
  concurrency: z.array(concurrency).max(20).refine(uniqueNames, twice).default([]).describe('So many sessions at once'),
  quotas: z.array(quota).max(12).refine(uniqueNames, twice).default([]).describe('How much may wait in the queue'),
});

/** The settings of one rule, for whoever compiles them. */
export const limitRules = { rate: rate.shape, concurrency: concurrency.shape, quota: quota.shape };
