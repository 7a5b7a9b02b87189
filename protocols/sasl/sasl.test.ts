/** The mechanisms against RFC 7677's vector and an independent client written here from RFC 5802. */
import { createHash, createHmac, pbkdf2Sync } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Random } from '../../ops/telemetry/index.js';
import { preparePassword } from '../../store/directory/passwords.js';
import {
  decodeBase64,
  deriveScramKeys,
  prepareCredential,
  type SaslBackend,
  type ScramOutcome,
  startSaslExchange,
} from './index.js';

const scram = { fakeSaltKey: Buffer.alloc(32, 1), iterations: 4096, saltBytes: 16 };
const principal = { accountId: '7', login: 'user', name: 'User' };

interface Seen {
  passwords: [string, string][];
  outcomes: ScramOutcome[];
  errors: unknown[];
}

function backendOf(password: string, salt: Buffer, iterations: number, seen: Seen, verdict?: 'disabled'): SaslBackend {
  const judge = (right: boolean) =>
    !right
      ? ({ ok: false, reason: 'invalid' } as const)
      : verdict
        ? ({ ok: false, reason: verdict } as const)
        : ({ ok: true, principal } as const);
  return {
    async verifyPassword(login, given) {
      seen.passwords.push([login, given]);
      if (login === 'broken') throw new Error('away');
      return judge(login === 'user' && given === password);
    },
    async scramCredentials(login) {
      if (login === 'broken') throw new Error('away');
      if (login !== 'user' && login !== 'a,b=c') return undefined;
      return { accountRef: 'ref', salt, iterations, ...(await deriveScramKeys(password, salt, iterations)) };
    },
    async scramDone(outcome) {
      seen.outcomes.push(outcome);
      return judge(outcome.proved);
    },
  };
}

function start(mechanism: string, options: { password?: string; salt?: Buffer; nonce?: Buffer; verdict?: 'disabled' } = {}) {
  const seen: Seen = { passwords: [], outcomes: [], errors: [] };
  const backend = backendOf(
    options.password ?? 'pencil',
    options.salt ?? Buffer.from('salty salt 12345'),
    4096,
    seen,
    options.verdict,
  );
  const random: Random = { float: () => 0, bytes: (length) => options.nonce ?? Buffer.alloc(length, 9) };
  const exchange = startSaslExchange(mechanism, {
    backend,
    context: { remoteAddress: '192.0.2.1', protocol: 'test' },
    scram,
    random,
    onBackendError: (error) => seen.errors.push(error),
  })!;
  const step = async (text: string | undefined) => exchange.step(text === undefined ? undefined : Buffer.from(text));
  return { step, seen };
}

/** RFC 5802's client side. */
function clientFinal(
  password: string,
  gs2: string,
  bare: string,
  serverFirst: string,
): { message: string; serverSignature: string } {
  const [, nonce, salt, iterations] = /^r=([^,]+),s=([^,]+),i=(\d+)$/.exec(serverFirst)!;
  const salted = pbkdf2Sync(password, Buffer.from(salt!, 'base64'), Number(iterations), 32, 'sha256');
  const mac = (key: Buffer, text: string) => createHmac('sha256', key).update(text).digest();
  const clientKey = mac(salted, 'Client Key');
  const storedKey = createHash('sha256').update(clientKey).digest();
  const withoutProof = `c=${Buffer.from(gs2).toString('base64')},r=${nonce}`;
  const authMessage = `${bare},${serverFirst},${withoutProof}`;
  const signature = mac(storedKey, authMessage);
  const proof = Buffer.from(clientKey.map((octet, index) => octet ^ signature[index]!));
  return {
    message: `${withoutProof},p=${proof.toString('base64')}`,
    serverSignature: `v=${mac(mac(salted, 'Server Key'), authMessage).toString('base64')}`,
  };
}

async function challenge(answer: Promise<unknown>): Promise<string> {
  const step = (await answer) as { kind: string; bytes: Buffer };
  expect(step).toMatchObject({ kind: 'challenge' });
  return step.bytes.toString();
}

describe('SCRAM-SHA-256', () => {
  it('gives the messages of RFC 7677 section 3', async () => {
    // The server's part of the nonce is printable there, not base64 of octets that we could hand in: so its octets are found by decoding.
    const serverPart = '%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0';
    const { step, seen } = start('scram-sha-256', {
      salt: Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64'),
      nonce: { toString: () => serverPart } as unknown as Buffer,
    });
    expect(await challenge(step('n,,n=user,r=rOprNGfwEbeRWgbNEkqO'))).toBe(
      `r=rOprNGfwEbeRWgbNEkqO${serverPart},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096`,
    );
    const final = `c=biws,r=rOprNGfwEbeRWgbNEkqO${serverPart},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=`;
    expect(await challenge(step(final))).toBe('v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=');
    expect(await step('')).toEqual({ kind: 'done', result: { ok: true, principal } });
    expect(seen.outcomes).toEqual([{ mechanism: 'SCRAM-SHA-256', login: 'user', accountRef: 'ref', proved: true }]);
  });

  it.each(['n,,', 'y,,', 'n,a=user,'])('accepts the header %s', async (gs2) => {
    const { step } = start('SCRAM-SHA-256');
    expect(await challenge(step(undefined))).toBe('');
    const bare = 'n=user,r=abc';
    const final = clientFinal('pencil', gs2, bare, await challenge(step(gs2 + bare)));
    expect(await challenge(step(final.message))).toBe(final.serverSignature);
    expect(await step('')).toMatchObject({ kind: 'done', result: { ok: true } });
  });

  it('notices a header changed on the way', async () => {
    const { step, seen } = start('SCRAM-SHA-256');
    const bare = 'n=user,r=abc';
    const final = clientFinal('pencil', 'y,,', bare, await challenge(step(`n,,${bare}`)));
    expect(await step(final.message)).toMatchObject({ kind: 'malformed' });
    expect(seen.outcomes).toEqual([]);
  });

  it('decodes =2C and =3D in names', async () => {
    const { step } = start('SCRAM-SHA-256');
    const bare = 'n=a=2Cb=3Dc,r=abc';
    const final = clientFinal('pencil', 'n,,', bare, await challenge(step(`n,,${bare}`)));
    expect(await challenge(step(final.message))).toBe(final.serverSignature);
  });

  it('refuses a wrong password, and a right one of a disabled account', async () => {
    for (const [password, verdict, reason] of [
      ['eraser', undefined, 'invalid'],
      ['pencil', 'disabled', 'disabled'],
    ] as const) {
      const { step } = start('SCRAM-SHA-256', verdict ? { verdict } : {});
      const bare = 'n=user,r=abc';
      const final = clientFinal(password, 'n,,', bare, await challenge(step(`n,,${bare}`)));
      expect(await step(final.message)).toEqual({ kind: 'done', result: { ok: false, reason } });
    }
  });

  it('challenges an unknown login like a known one, always with the same salt, and refuses it', async () => {
    const firsts: string[] = [];
    for (let i = 0; i < 2; i++) {
      const { step, seen } = start('SCRAM-SHA-256');
      const bare = 'n=nobody,r=abc';
      const first = await challenge(step(`n,,${bare}`));
      firsts.push(first);
      expect(first).toMatch(/^r=abc[^,]{24},s=[A-Za-z0-9+/]{22}==,i=4096$/);
      expect(await step(clientFinal('pencil', 'n,,', bare, first).message)).toEqual({
        kind: 'done',
        result: { ok: false, reason: 'invalid' },
      });
      expect(seen.outcomes).toEqual([{ mechanism: 'SCRAM-SHA-256', login: 'nobody', accountRef: undefined, proved: false }]);
    }
    expect(firsts[0]).toBe(firsts[1]);
  });

  it('gives one salt to all spellings of an unknown address, as the directory does to those of a known one', async () => {
    const saltOf = async (login: string) => {
      const { step } = start('SCRAM-SHA-256');
      return /,s=([^,]+),/.exec(await challenge(step(`n,,n=${login},r=abc`)))![1];
    };
    const salt = await saltOf('nobody@xn--exmple-cua.test');
    for (const login of ['"nobody"@xn--exmple-cua.test', '"no\\body"@XN--EXMPLE-CUA.test', 'Nobody@ex\u00e4mple.test.']) {
      expect(await saltOf(login), login).toBe(salt);
    }
    expect(await saltOf('somebody@xn--exmple-cua.test')).not.toBe(salt);
  });

  it.each([
    'p=tls-unique,,n=user,r=abc',
    'n,a=other,n=user,r=abc',
    'n,,m=x,n=user,r=abc',
    'n,,n=user,r=abc,m=x',
    'n,,n=user,r=abc,x=y,m=x',
    'n,,n=us=er,r=abc',
    'n,,n=user',
    'n,,n=,r=abc',
    'n,,n=user,r=',
    'x,,n=user,r=abc',
    '',
    'n,,n=us\u0000er,r=abc',
  ])('calls %j malformed', async (first) => {
    const { step } = start('SCRAM-SHA-256');
    expect(await step(first)).toMatchObject({ kind: 'malformed' });
    expect(await step(first)).toMatchObject({ kind: 'malformed' });
  });

  it('calls a stale nonce, a short proof and talk after the end malformed', async () => {
    for (const change of [
      (text: string) => text.replace('r=abc', 'r=abd'),
      (text: string) => text.replace(/p=.*/, 'p=AAAA'),
      (text: string) => text.replace(',p=', ',m=x,p='),
      (text: string) => text.replace(/,p=.*/, ''),
    ]) {
      const { step } = start('SCRAM-SHA-256');
      const bare = 'n=user,r=abc';
      const final = clientFinal('pencil', 'n,,', bare, await challenge(step(`n,,${bare}`)));
      expect(await step(change(final.message))).toMatchObject({ kind: 'malformed' });
      expect(await step(final.message)).toMatchObject({ kind: 'malformed' });
    }
  });

  it('tells when the backend is away', async () => {
    const { step, seen } = start('SCRAM-SHA-256');
    expect(await step('n,,n=broken,r=abc')).toEqual({ kind: 'done', result: { ok: false, reason: 'unavailable' } });
    expect(seen.errors).toHaveLength(1);
  });
});

describe('PLAIN and LOGIN', () => {
  it('accept the right password', async () => {
    const plain = start('PLAIN');
    expect(await challenge(plain.step(undefined))).toBe('');
    expect(await plain.step('\0user\0pencil')).toEqual({ kind: 'done', result: { ok: true, principal } });
    expect(await start('plain').step('user\0user\0pencil')).toMatchObject({ result: { ok: true } });
    const login = start('LOGIN');
    expect(await challenge(login.step(undefined))).toBe('Username:');
    expect(await challenge(login.step('user'))).toBe('Password:');
    expect(await login.step('pencil')).toMatchObject({ result: { ok: true } });
  });

  it.each(['user\0pencil', '\0\0pencil', '\0user\0', 'other\0user\0pencil', '\0user\0pen\ncil', '\0user\0pencil\0', ''])(
    'PLAIN calls %j malformed and asks nobody',
    async (message) => {
      const { step, seen } = start('PLAIN');
      expect(await step(message)).toMatchObject({ kind: 'malformed' });
      expect(seen.passwords).toEqual([]);
    },
  );

  it('compares in NFKC', async () => {
    const { step, seen } = start('PLAIN');
    await step('\0user\0I\u00adX \u2168 \u00a0');
    expect(seen.passwords).toEqual([['user', 'IX IX  ']]);
  });

  it('tell failures apart', async () => {
    expect(await start('PLAIN').step('\0user\0wrong')).toMatchObject({ result: { reason: 'invalid' } });
    const broken = start('PLAIN');
    expect(await broken.step('\0broken\0x')).toMatchObject({ result: { reason: 'unavailable' } });
    expect(broken.seen.errors).toHaveLength(1);
    const { backend, context, onBackendError } = {
      backend: {} as SaslBackend,
      context: { remoteAddress: '', protocol: '' },
      onBackendError() {},
    };
    for (const name of ['CRAM-MD5', 'DIGEST-MD5', 'XOAUTH2', 'OAUTHBEARER', 'SCRAM-SHA-256', 'EXTERNAL', '']) {
      expect(startSaslExchange(name, { backend, context, onBackendError }), name).toBeUndefined();
    }
  });
});

describe('decodeBase64', () => {
  it('is strict', () => {
    expect(decodeBase64('aGk=')?.toString()).toBe('hi');
    expect(decodeBase64('')).toEqual(Buffer.alloc(0));
    for (const bad of ['aGk', 'aGl=', 'a', '====', 'aGk=aGk=', 'aG k', 'aGk=\n', 'aG-_', 'aGkA='])
      expect(decodeBase64(bad), bad).toBeUndefined();
    expect(decodeBase64('AAAA', 2)).toBeUndefined();
    expect(decodeBase64('AAA=', 2)).toHaveLength(2);
  });
});

describe('prepareCredential', () => {
  it('gives the same when it is done again: the directory prepares what a mechanism has prepared', () => {
    const odd = fc.constantFrom(
      '\u00a0',
      '\u00ad',
      '\u200b',
      '\u200d',
      '\u2011',
      '\u3000',
      '\ufb01',
      '\uff21',
      '\ufe0f',
      'e\u0301',
      '\u1e9b\u0323',
      '\ufdfa',
    );
    const text = fc
      .array(fc.oneof(odd, fc.string({ unit: 'grapheme', maxLength: 4 })), { maxLength: 12 })
      .map((parts) => parts.join(''));
    fc.assert(
      fc.property(text, (typed) => {
        const prepared = prepareCredential(typed);
        if (prepared !== undefined) expect(prepareCredential(prepared)).toBe(prepared);
      }),
      { numRuns: 2_000 },
    );
  });

  it('takes what the directory takes, and nothing else', () => {
    // Once set, such a password could not be used with PLAIN; and the other way round.
    for (const text of ['x\ufdd0', 'x\uffff', 'x\u200e', 'x\u202e', 'x\u{e0041}', 'x\u2ff0', '\u00e9'.repeat(600)])
      expect(prepareCredential(text), JSON.stringify(text)).toBe(preparePassword(text));
    expect(prepareCredential('\uff33\uff45\uff43')).toBe('Sec');
  });

  it('refuses what can not be typed', () => {
    for (const bad of ['', 'a\u0007', '\ud800', '\u2028', '\ue000', '\u00ad', 'x'.repeat(1025)])
      expect(prepareCredential(bad)).toBeUndefined();
    expect(prepareCredential('p😀ß')).toBe('p😀ß');
  });
});
