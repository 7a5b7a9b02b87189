/** What a session offers at this moment: the keywords of its EHLO answer. What is not offered is refused in commands. */
import {
  type EhloKeyword,
  type ExtensionSet,
  ehloKeywords,
  extensionSet,
  hasExtension,
  type SmtpExtension,
  withExtension,
} from '../grammar/extensions.js';
import { formatDateTime } from '../grammar/parameters.js';
import { xclientAttributes, xforwardAttributes } from '../grammar/proxied.js';
import type { SessionCore } from './core.js';
import { authMechanisms, hasAuth } from './verbs/auth-offer.js';

/** Offered always, unless policy says no. */
const everywhere = extensionSet('PIPELINING', 'SIZE', '8BITMIME', 'CHUNKING', 'ENHANCEDSTATUSCODES', 'DSN', 'MT-PRIORITY');

/** Everything that the session offers now. */
export function offered(session: SessionCore): ExtensionSet {
  const { policy, limits, handler, principal } = session;
  const withheld = policy?.extensions;
  let set = everywhere;
  if (withheld) {
    set = extensionSet();
    for (const keyword of ehloKeywords) {
      if (hasExtension(everywhere, keyword) && withheld[keyword as SmtpExtension] !== false) set = withExtension(set, keyword);
    }
  }
  const add = (keyword: SmtpExtension, possible: boolean) => {
    if (possible && withheld?.[keyword] !== false) set = withExtension(set, keyword);
  };
  // RFC 6531 3.1 (8) and RFC 3030 3: neither comes without the other.
  add('SMTPUTF8', hasExtension(set, '8BITMIME'));
  add('BINARYMIME', hasExtension(set, 'CHUNKING'));
  // RFC 8689 4.1: only under TLS.
  add('REQUIRETLS', session.secure);
  // RFC 4865 is an extension of submission.
  add('FUTURERELEASE', session.mode === 'submission' && limits.maxHoldSeconds > 0);
  add('DELIVERBY', true);
  add('LIMITS', [limits.maxMessages, limits.maxRecipients, limits.maxRecipientDomains].some(isLimitValue));
  add('VRFY', principal !== undefined && handler.vrfy !== undefined);
  add('EXPN', principal !== undefined && handler.expn !== undefined);
  add('STARTTLS', !session.secure && session.connection.startTls !== undefined);
  if (session.secure && hasAuth(session)) set = withExtension(set, 'AUTH');
  if (policy?.isTrustedPeer) set = withExtension(withExtension(set, 'XCLIENT'), 'XFORWARD');
  return set;
}

/** `offered` for one extension. */
export function offers(session: SessionCore, keyword: EhloKeyword): boolean {
  return hasExtension(offered(session), keyword);
}

/** RFC 9422 4: values have at most six digits and are above 0. */
const isLimitValue = (value: number) => Number.isInteger(value) && value > 0 && value <= 999_999;

function limitValues({ limits }: SessionCore): string {
  const pairs: [name: string, value: number][] = [
    ['MAILMAX', limits.maxMessages],
    ['RCPTMAX', limits.maxRecipients],
    ['RCPTDOMAINMAX', limits.maxRecipientDomains],
  ];
  return pairs
    .filter(([, value]) => isLimitValue(value))
    .map(([name, value]) => `${name}=${value}`)
    .join(' ');
}

function parametersOf(session: SessionCore, keyword: EhloKeyword): string | undefined {
  const { limits } = session;
  switch (keyword) {
    case 'SIZE':
      return String(limits.maxMessageBytes);
    case 'FUTURERELEASE':
      // RFC 4865 4: the interval in seconds, and the date and time that it reaches to.
      return `${limits.maxHoldSeconds} ${formatDateTime(session.clock.nowMs() + limits.maxHoldSeconds * 1000)}`;
    case 'DELIVERBY':
      return limits.minDeliverBySeconds > 0 ? String(limits.minDeliverBySeconds) : undefined;
    case 'LIMITS':
      return limitValues(session);
    case 'AUTH':
      return authMechanisms(session).join(' ');
    case 'XCLIENT':
      return xclientAttributes.join(' ');
    case 'XFORWARD':
      return xforwardAttributes.join(' ');
    default:
      return undefined;
  }
}

/** The lines of an EHLO or LHLO answer after the first. */
export function capabilityLines(session: SessionCore): string[] {
  const set = offered(session);
  const lines: string[] = [];
  for (const keyword of ehloKeywords) {
    if (!hasExtension(set, keyword)) continue;
    const parameters = parametersOf(session, keyword);
    if (parameters === undefined) lines.push(keyword);
    // A login without any mechanism is none.
    else if (parameters !== '') lines.push(`${keyword} ${parameters}`);
  }
  return lines;
}
