/** What scripts are told of the node, the session and the envelope. Built only when one runs. */
import type { SieveEnvelope } from '../../../protocols/sieve/index.js';
import type { RecipientCommand, SessionInfo } from '../../../protocols/smtp/server/handler.js';
import { version } from '../../version.js';
import type { ScriptStage } from './contract.js';
import type { Facts } from './facts.js';
import type { Transaction } from './state.js';

/** The items of RFC 5183 4.1, and as `vnd.starling.…` the stage, what expressions are told there, and what checks have said. */
export function environmentOf(
  stage: ScriptStage,
  session: SessionInfo,
  facts: Facts,
  checks: Readonly<Record<string, string>>,
): Record<string, string> {
  const { hostname = '' } = facts;
  const environment: Record<string, string> = {
    domain: domainOfHost(hostname),
    host: hostname,
    location: 'MTA',
    name: 'starling',
    phase: 'during',
    'remote-host': session.remoteName ?? '',
    'remote-ip': session.remoteAddress,
    version,
    'vnd.starling.stage': stage,
  };
  for (const [name, value] of Object.entries(facts)) environment[`vnd.starling.${name}`] = String(value);
  for (const [name, result] of Object.entries(checks)) environment[`vnd.starling.check.${name.toLowerCase()}`] = result;
  return environment;
}

/** `example.net` of `mx1.example.net`; a name of two labels is its own. */
function domainOfHost(hostname: string): string {
  const rest = hostname.slice(hostname.indexOf('.') + 1);
  return rest.includes('.') ? rest : hostname;
}

/** @param recipients those the script is run for, with their commands where there is one for each. */
export function envelopeOf(
  session: SessionInfo,
  transaction: Transaction | undefined,
  recipients: readonly string[],
  commands: readonly RecipientCommand[],
  nowMs: number,
): SieveEnvelope {
  const parts: Record<string, readonly string[]> = {};
  // Not the AUTH= of MAIL, which is only a claim.
  if (session.principal) parts['auth'] = [session.principal.login];
  if (!transaction) return { to: [], parts };
  const { ret, envelopeId, sizeBytes } = transaction.mail.parameters;
  if (sizeBytes !== undefined) parts['size'] = [String(sizeBytes)];
  // RFC 6009 3.
  if (ret !== undefined) parts['ret'] = [ret];
  if (envelopeId !== undefined) parts['envid'] = [envelopeId];
  const notify = commands.flatMap(({ parameters }) => (parameters.notify ? [parameters.notify.join(',')] : []));
  if (notify.length > 0) parts['notify'] = notify;
  const original = commands.flatMap(({ parameters: { originalRecipient: one } }) => (one ? [`${one.type};${one.address}`] : []));
  if (original.length > 0) parts['orcpt'] = original;
  const { deliverBy } = transaction.options;
  if (deliverBy) Object.assign(parts, deliverByParts(deliverBy, nowMs));
  return { from: transaction.sender, to: recipients, parts };
}

/** RFC 6009 4: the time in the form of RFC 3339, and what is left until then. */
function deliverByParts(
  { untilMs, mode, isTraced }: NonNullable<Transaction['options']['deliverBy']>,
  nowMs: number,
): Record<string, readonly string[]> {
  return {
    bytimeabsolute: [new Date(untilMs).toISOString().replace(/\.\d+Z$/, 'Z')],
    bytimerelative: [String(Math.round((untilMs - nowMs) / 1000))],
    bymode: [mode === 'return' ? 'R' : 'N'],
    bytrace: isTraced ? ['T'] : [],
  };
}
