/** SCRAM-SHA-256-PLUS, and what keeps it from being taken away on the way; with the client of this room at the other end. */
import { describe, expect, it } from 'vitest';
import { createSaslClient } from './client/index.js';
import type { ChannelBindingSource } from './contract.js';
import { offeredMechanisms, startSaslExchange } from './index.js';
import { challengeOf, converse, exchangeParts, TestAccounts, testLogin, testPassword, testScram } from './testing/accounts.js';

const bytes = Buffer.alloc(32, 5);
const exporterOnly: ChannelBindingSource = (type) => (type === 'tls-exporter' ? bytes : undefined);
const options = { host: 'mx.example.test', service: 'smtp' };
const credentials = { login: testLogin, password: testPassword };

function server(mechanism: string, source: ChannelBindingSource | undefined = exporterOnly, offered?: string[]) {
  const accounts = new TestAccounts();
  const parts = { ...exchangeParts(accounts), channelBinding: source, ...(offered && { offered }) };
  return { accounts, exchange: startSaslExchange(mechanism, parts) };
}

/** Client and server talk; answers the server's last step. */
async function talk(clientBytes: Buffer, type: 'tls-exporter' | 'tls-server-end-point' = 'tls-exporter') {
  const { accounts, exchange } = server('SCRAM-SHA-256-PLUS');
  const channelBinding = { type, bytes: clientBytes };
  const client = createSaslClient('SCRAM-SHA-256-PLUS', credentials, { ...options, channelBinding });
  let step = await exchange!.step(client.initial);
  while (step.kind === 'challenge') step = await exchange!.step(await client.step(step.bytes));
  return { step, accounts, client };
}

describe('SCRAM-SHA-256-PLUS', () => {
  it('logs in over the same TLS connection, and proves the server', async () => {
    const { step, accounts, client } = await talk(bytes);
    expect(step).toMatchObject({ kind: 'done', result: { ok: true } });
    expect(client.isComplete).toBe(true);
    expect(accounts.outcomes).toMatchObject([{ mechanism: 'SCRAM-SHA-256-PLUS', proved: true }]);
  });

  it('refuses a proof that was made for another connection', async () => {
    const other = await talk(Buffer.alloc(32, 6));
    expect(other.step).toMatchObject({ kind: 'done', result: { ok: false, reason: 'invalid' } });
    expect(other.accounts.outcomes).toMatchObject([{ proved: false }]);
    expect((await talk(Buffer.alloc(0))).step).toMatchObject({ result: { ok: false } });
  });

  it('knows only the types that the connection has', async () => {
    expect((await talk(bytes, 'tls-server-end-point')).step).toMatchObject({ kind: 'malformed' });
    expect(await converse(server('SCRAM-SHA-256-PLUS').exchange!, 'p=tls-unique,,n=x,r=abc')).toMatchObject({
      kind: 'malformed',
    });
    for (const flag of ['n', 'y']) {
      expect(await converse(server('SCRAM-SHA-256-PLUS').exchange!, `${flag},,n=x,r=abc`), flag).toMatchObject({
        kind: 'malformed',
      });
    }
    expect(await converse(server('SCRAM-SHA-256').exchange!, 'p=tls-exporter,,n=x,r=abc')).toMatchObject({ kind: 'malformed' });
  });

  it('ends when a client would have bound but saw no -PLUS that was offered (RFC 5802 6)', async () => {
    const stripped = createSaslClient('SCRAM-SHA-256', credentials, {
      ...options,
      channelBinding: { type: 'tls-exporter', bytes },
      offered: ['SCRAM-SHA-256', 'PLAIN'],
    });
    expect(stripped.initial!.toString()).toMatch(/^y,,/);
    const { exchange, accounts } = server('SCRAM-SHA-256');
    expect(await exchange!.step(stripped.initial)).toMatchObject({ kind: 'malformed', text: expect.stringContaining('changed') });
    expect(accounts.outcomes).toEqual([]);
    // The same client where -PLUS is really not offered.
    const plain = server('SCRAM-SHA-256', exporterOnly, ['SCRAM-SHA-256']);
    expect(challengeOf(await plain.exchange!.step(stripped.initial)).toString()).toMatch(/^r=/);
    // Who can't bind says so, and is let in.
    expect(challengeOf(await server('SCRAM-SHA-256').exchange!.step(Buffer.from('n,,n=x,r=abc'))).toString()).toMatch(/^r=abc/);
  });

  it('is refused where the client has no binding', () => {
    expect(() => createSaslClient('SCRAM-SHA-256-PLUS', credentials, options)).toThrow('channel binding');
    expect(server('SCRAM-SHA-256-PLUS', () => undefined).exchange).toBeUndefined();
  });
});

describe('offeredMechanisms', () => {
  const backend = new TestAccounts();

  it('are what backend, settings, policy and connection allow', () => {
    const all = ['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256', 'OAUTHBEARER', 'XOAUTH2', 'PLAIN', 'LOGIN', 'DIGEST-MD5', 'CRAM-MD5'];
    expect(offeredMechanisms({ backend, scram: testScram, channelBinding: exporterOnly })).toEqual(all);
    expect(offeredMechanisms({ backend, scram: testScram })).toEqual(all.slice(1));
    expect(offeredMechanisms({ backend, scram: testScram, channelBinding: () => undefined })).toEqual(all.slice(1));
    expect(offeredMechanisms({ backend })).toEqual(all.slice(2));
    const bare = {
      verifyPassword: backend.verifyPassword,
      scramCredentials: backend.scramCredentials,
      scramDone: backend.scramDone,
    };
    expect(offeredMechanisms({ backend: bare, scram: testScram })).toEqual(['SCRAM-SHA-256', 'PLAIN', 'LOGIN']);
    const allowed = ['login', 'Plain', 'PLAIN', 'EXTERNAL', 'cram-md5'];
    expect(offeredMechanisms({ backend, allowed })).toEqual(['LOGIN', 'PLAIN', 'CRAM-MD5']);
    const settings = Object.assign(new TestAccounts(), { allowedMechanisms: () => ['PLAIN', 'XOAUTH2'] as const });
    expect(offeredMechanisms({ backend: settings, scram: testScram, allowed })).toEqual(['PLAIN']);
  });

  it('are the only ones that can be started', () => {
    const parts = { ...exchangeParts(backend), offered: ['PLAIN'] };
    expect(startSaslExchange('plain', parts)).toBeDefined();
    expect(startSaslExchange('LOGIN', parts)).toBeUndefined();
  });
});
