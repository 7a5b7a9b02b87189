/** Section `login`: how people and their programs prove who they are. */
import { z } from 'zod';

/** Signatures with a public key. No `none`, and nothing that is keyed by a secret: a public key must never be taken for one. */
export const tokenAlgorithms = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
] as const;

const isLocal = (host: string) => host === 'localhost' || host === '[::1]' || /^127(?:\.\d{1,3}){3}$/.test(host);

/** Keys and answers that decide about logins come over TLS, or from this very machine. */
const serviceUrl = () =>
  z
    .string()
    .max(1_000)
    .refine((text) => {
      const url = URL.canParse(text) ? new URL(text) : undefined;
      return url?.protocol === 'https:' || (url?.protocol === 'http:' && isLocal(url.hostname));
    }, 'must be an https URL (http only to this machine)');

const introspection = z
  .strictObject({
    url: serviceUrl().describe('Introspection endpoint (RFC 7662)'),
    clientId: z.string().min(1).max(255).describe('This server as a client of the issuer'),
    clientSecret: z.string().min(1).max(1_000),
    addressClaim: z
      .string()
      .min(1)
      .max(100)
      .default('username')
      .describe("Member of the answer that holds the account's address"),
    asksAbout: z
      .enum(['opaque', 'all'])
      .default('opaque')
      .describe('opaque: tokens that are no JWT. all: signed ones as well, so that revoked ones are refused at once'),
  })
  .describe('Asking the issuer whether a token holds');

const issuer = z
  .strictObject({
    issuer: serviceUrl().describe('As it is in the `iss` claim, to the letter'),
    audiences: z
      .array(z.string().min(1).max(500))
      .min(1)
      .max(20)
      .describe('One of these must be in the `aud` claim; of an introspection without one it must be the `client_id`'),
    jwksUrl: serviceUrl()
      .optional()
      .describe("The issuer's keys; default: found by discovery (.well-known/openid-configuration)"),
    algorithms: z
      .array(z.enum(tokenAlgorithms))
      .min(1)
      .default(['RS256', 'PS256', 'ES256', 'EdDSA'])
      .describe('Signatures that are taken'),
    addressClaim: z.string().min(1).max(100).default('email').describe("Claim that holds the account's address"),
    requiredScopes: z
      .array(z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]{1,200}$/))
      .max(20)
      .default([])
      .describe('All of these must be granted'),
    domains: z
      .array(z.string().min(1).max(253))
      .max(1_000)
      .default([])
      .describe('Domains whose accounts this issuer speaks for; none: all'),
    clockToleranceSeconds: z.number().min(0).max(300).default(30).describe("How wrong the issuer's clock may be"),
    introspection: introspection.optional(),
  })
  .describe('Who may issue access tokens');

export const login = z.strictObject({
  mechanisms: z
    .strictObject({
      plain: z.boolean().default(true).describe('PLAIN, and the LOGIN command of IMAP'),
      login: z.boolean().default(true),
      scramSha256: z.boolean().default(true),
      scramSha256Plus: z.boolean().default(true).describe('SCRAM-SHA-256 tied to the TLS connection'),
      oauthbearer: z.boolean().default(true).describe('Where issuers are set'),
      xoauth2: z.boolean().default(true).describe('Where issuers are set'),
      cramMd5: z.boolean().default(false).describe('For accounts that keep a secret for it; out of date'),
      digestMd5: z.boolean().default(false).describe('For accounts that keep a secret for it; out of date'),
    })
    .prefault({})
    .describe('What is offered'),
  issuers: z
    .record(z.string().regex(/^[A-Za-z0-9_-]{1,60}$/), issuer)
    .default({})
    .describe('Issuers of access tokens, by a name of your own'),
  answerSeconds: z
    .number()
    .min(0)
    .max(3_600)
    .default(60)
    .describe('How long the answer of an introspection is believed: a revoked token may work for so long'),
  keysSeconds: z
    .number()
    .min(10)
    .max(86_400)
    .default(600)
    .describe("How long an issuer's keys are kept; unknown ones are looked for sooner"),
  timeoutSeconds: z.number().min(0.1).max(60).default(5).describe('Patience with an issuer'),
});

/** Paths of secrets within the section. */
export const loginSecrets = ['issuers.*.introspection.clientSecret'] as const;
