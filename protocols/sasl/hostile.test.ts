/** Whatever a client sends: no step throws, every exchange ends, answers stay small. The same for servers that our own client meets. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { clientMechanisms, createSaslClient, SaslClientError } from './client/index.js';
import { saslMechanisms, startSaslExchange } from './index.js';
import { exchangeParts, TestAccounts, testLogin, testPassword } from './testing/accounts.js';

const binding = { type: 'tls-exporter', bytes: Buffer.alloc(32, 3) } as const;

/** Noise, and pieces of real messages in any order. */
const message = fc
  .array(
    fc.oneof(
      fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes).toString('latin1')),
      fc.constantFrom(
        'n,,n=alice@example.test,r=abc',
        'y,,',
        'p=tls-exporter,,',
        'n=',
        ',r=',
        'c=biws,r=',
        ',p=',
        'i=4096',
        's=QSXCR+Q6sek8bf92',
        'v=',
        'e=x',
        '=2C',
        '=3D',
        '\0',
        '\x01',
        'auth=Bearer x',
        'user=alice@example.test',
        'n,a=x,\x01',
        'username="alice@example.test"',
        'realm="starling"',
        'nonce="x"',
        'nc=00000001',
        'qop=auth',
        'rspauth=',
        'charset=utf-8',
        'algorithm=md5-sess',
        '"',
        '\\',
        ',',
        '=',
        ' ',
        testLogin,
        'a'.repeat(32),
        'x'.repeat(3_000),
      ),
    ),
    { maxLength: 12 },
  )
  .map((parts) => Buffer.from(parts.join(''), 'latin1'));

describe('a hostile client', () => {
  it.each(saslMechanisms)('gets steps, never an error: %s', async (mechanism) => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.option(message, { nil: undefined }), { maxLength: 6 }), async (messages) => {
        const accounts = new TestAccounts();
        // Real keys take milliseconds, and change nothing here.
        accounts.scramCredentials = async () => undefined;
        const parts = { ...exchangeParts(accounts), channelBinding: () => binding.bytes };
        const exchange = startSaslExchange(mechanism, parts)!;
        for (const said of messages) {
          const step = await exchange.step(said);
          if (step.kind === 'challenge') expect(step.bytes.length).toBeLessThan(10_000);
          else if (step.kind === 'done') expect(step.result.ok).toBe(false);
          else expect(step.text.length).toBeLessThan(200);
          if (step.kind !== 'challenge') break;
        }
      }),
      { numRuns: 150 },
    );
  });
});

describe('a hostile server', () => {
  it.each(clientMechanisms)('gets small answers or an error of ours: %s', async (mechanism) => {
    await fc.assert(
      fc.asyncProperty(fc.array(message, { maxLength: 5 }), async (challenges) => {
        const isToken = mechanism === 'XOAUTH2' || mechanism === 'OAUTHBEARER';
        const credentials = isToken ? { login: testLogin, accessToken: 'token' } : { login: testLogin, password: testPassword };
        const client = createSaslClient(mechanism, credentials, { host: 'h', service: 'smtp', channelBinding: binding });
        try {
          for (const challenge of challenges) expect((await client.step(challenge)).length).toBeLessThan(10_000);
        } catch (error) {
          expect(error).toBeInstanceOf(SaslClientError);
        }
        const provesServer = mechanism.startsWith('SCRAM') || mechanism === 'DIGEST-MD5';
        if (provesServer) expect(client.isComplete).toBe(false);
      }),
      { numRuns: 150 },
    );
  });
});
