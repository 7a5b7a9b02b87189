/** What the node decides about one session beyond the listener's options, from the stage `policy`. Nothing set, or constants only: one object for all. */
import { type SmtpExtension, smtpExtensions } from '../../../protocols/smtp/grammar/index.js';
import type { SessionInfo, SessionPolicy } from '../../../protocols/smtp/server/handler.js';
import type { SmtpLimits } from '../../../protocols/smtp/server/limits.js';
import type { ExpressionType, StageExpression } from '../../expressions/contract.js';
import type { Asker } from './ask.js';
import type { PolicyStage } from './contract.js';
import { connectionFacts, type Facts, type NodeFacts } from './facts.js';
import { isPromise, type MaybePromise } from './maybe.js';

/** The values of a `PolicyStage`. */
export type PolicyValues = {
  [Name in keyof PolicyStage]?: NonNullable<NonNullable<PolicyStage[Name]>['constant']>;
};

export type PolicyRoom = (session: SessionInfo) => MaybePromise<SessionPolicy | undefined>;

/** @param stage as it holds from now on; make a new room when it changes. */
export function createPolicyRoom(stage: PolicyStage, asker: Asker, node: () => NodeFacts): PolicyRoom {
  const entries = Object.entries(stage) as [string, StageExpression<ExpressionType>][];
  if (entries.length === 0) return () => undefined;
  const constants = policyConstants(stage);
  const variable = entries.filter(([, expression]) => expression.constant === undefined);
  const shared = policyOf(constants);
  if (variable.length === 0) return () => shared;

  return (session) => {
    let facts: Facts | undefined;
    const known = () => (facts ??= connectionFacts(session, node()));
    const values: Record<string, unknown> = { ...constants };
    const waits: Promise<void>[] = [];
    for (const [name, expression] of variable) {
      const answer: MaybePromise<unknown> = asker.ask(expression, known);
      if (!isPromise(answer)) values[name] = answer;
      else
        waits.push(
          answer.then((value) => {
            values[name] = value;
          }),
        );
    }
    return waits.length === 0
      ? policyOf(values as PolicyValues)
      : Promise.all(waits).then(() => policyOf(values as PolicyValues));
  };
}

/** What is known of the stage without a session. */
export function policyConstants(stage: PolicyStage): PolicyValues {
  const entries = Object.entries(stage) as [string, StageExpression<ExpressionType>][];
  return Object.fromEntries(
    entries.filter(([, { constant }]) => constant !== undefined).map(([name, { constant }]) => [name, constant]),
  );
}

/** The limits among the values; what is not there stays as the listener has it. */
export function limitsOf(values: PolicyValues): Partial<SmtpLimits> {
  const { maxMessageBytes, maxRecipients, maxRecipientDomains, maxMessages, maxErrors, greetingDelayMs, bareLineEnds } = values;
  const { maxRefusedRecipients } = values;
  const { commandTimeoutSeconds, dataTimeoutSeconds, sessionTimeoutSeconds, maxHoldSeconds, minDeliverBySeconds } = values;
  return {
    ...(maxMessageBytes !== undefined && { maxMessageBytes }),
    ...(maxRecipients !== undefined && { maxRecipients }),
    ...(maxRecipientDomains !== undefined && { maxRecipientDomains }),
    ...(maxMessages !== undefined && { maxMessages }),
    ...(maxErrors !== undefined && { maxErrors }),
    ...(maxRefusedRecipients !== undefined && { maxRefusedRecipients }),
    ...(greetingDelayMs !== undefined && { greetingDelayMs }),
    ...(bareLineEnds !== undefined && { bareLineEnds: bareLineEnds as SmtpLimits['bareLineEnds'] }),
    ...(maxHoldSeconds !== undefined && { maxHoldSeconds }),
    ...(minDeliverBySeconds !== undefined && { minDeliverBySeconds }),
    ...(commandTimeoutSeconds !== undefined && { commandTimeoutMs: commandTimeoutSeconds * 1000 }),
    ...(dataTimeoutSeconds !== undefined && { dataTimeoutMs: dataTimeoutSeconds * 1000 }),
    ...(sessionTimeoutSeconds !== undefined && { sessionTimeoutMs: sessionTimeoutSeconds * 1000 }),
  };
}

function policyOf(values: PolicyValues): SessionPolicy {
  const policy: SessionPolicy = {};
  const limits = limitsOf(values);
  if (Object.keys(limits).length > 0) policy.limits = limits;
  const { requiresTls, offersAuth, authMechanisms, isTrustedPeer, tarpitMs, withheldExtensions } = values;
  if (requiresTls !== undefined) policy.requiresTls = requiresTls;
  if (offersAuth !== undefined) policy.offersAuth = offersAuth;
  // None named: whatever there is.
  if (authMechanisms !== undefined && authMechanisms.length > 0)
    policy.authMechanisms = authMechanisms.map((name) => name.toUpperCase());
  if (isTrustedPeer !== undefined) policy.isTrustedPeer = isTrustedPeer;
  if (tarpitMs !== undefined) policy.tarpitMs = tarpitMs;
  const withheld = withheldExtensions?.map((name) => name.toUpperCase()).filter(isExtension);
  if (withheld && withheld.length > 0) policy.extensions = Object.fromEntries(withheld.map((name) => [name, false]));
  return policy;
}

const isExtension = (name: string): name is SmtpExtension => (smtpExtensions as readonly string[]).includes(name);
