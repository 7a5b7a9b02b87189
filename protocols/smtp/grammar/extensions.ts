/** The extensions of SMTP that we know by name, and sets of them that fit in one number: thousands of idle sessions have one each. */

/** Extensions that a session may leave out of its EHLO answer, and then refuses. */
export const smtpExtensions = [
  'SIZE',
  'PIPELINING',
  '8BITMIME',
  'SMTPUTF8',
  'CHUNKING',
  'BINARYMIME',
  'DSN',
  'STARTTLS',
  'REQUIRETLS',
  'FUTURERELEASE',
  'DELIVERBY',
  'MT-PRIORITY',
  'LIMITS',
  'VRFY',
  'EXPN',
] as const;
export type SmtpExtension = (typeof smtpExtensions)[number];

/** Everything that an EHLO answer may list. */
export type EhloKeyword = SmtpExtension | 'ENHANCEDSTATUSCODES' | 'AUTH' | 'XCLIENT' | 'XFORWARD';

/** In the order of the EHLO answer. */
export const ehloKeywords: readonly EhloKeyword[] = [
  'PIPELINING',
  'SIZE',
  '8BITMIME',
  'SMTPUTF8',
  'CHUNKING',
  'BINARYMIME',
  'ENHANCEDSTATUSCODES',
  'DSN',
  'REQUIRETLS',
  'FUTURERELEASE',
  'DELIVERBY',
  'MT-PRIORITY',
  'LIMITS',
  'VRFY',
  'EXPN',
  'STARTTLS',
  'AUTH',
  'XCLIENT',
  'XFORWARD',
];

/** A set of keywords, a bit for each. */
export type ExtensionSet = number;

const bits = Object.fromEntries(ehloKeywords.map((keyword, index) => [keyword, 1 << index])) as Record<EhloKeyword, number>;

export function extensionSet(...keywords: EhloKeyword[]): ExtensionSet {
  return keywords.reduce((set, keyword) => set | bits[keyword], 0);
}

export function hasExtension(set: ExtensionSet, keyword: EhloKeyword): boolean {
  return (set & bits[keyword]) !== 0;
}

export function withExtension(set: ExtensionSet, keyword: EhloKeyword): ExtensionSet {
  return set | bits[keyword];
}
