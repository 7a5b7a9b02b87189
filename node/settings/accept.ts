/** The stages of accepting mail as the settings have them: every expression compiled once per change, and what is as by default left out. */
import {
  type CompiledExpression,
  compiledSetting,
  createStageEvaluator,
  ExpressionError,
  type ExpressionSource,
  type ExpressionType,
  type ExpressionValues,
  type StageContext,
  type StageEvaluator,
  type StageExpression,
  type StageSchema,
} from '../expressions/index.js';
import { type AcceptStages, countedStages, networkSet, type PolicyStage } from '../mailflow/index.js';
import { live } from './live.js';
import { accept as acceptSchema } from './schemas/accept.js';
import { limitRules } from './schemas/limits.js';
import { screeningStages } from './schemas/screening.js';
import { smtp as smtpSchema } from './schemas/smtp.js';
import { scriptStagesOf } from './scripts.js';
import type { ClusterSettings, NodeSettings } from './sections.js';

type StageSettings = Pick<ClusterSettings, 'smtp' | 'accept' | 'limits' | 'screening' | 'scripts'>;

/** Asked at every step of every session; made anew after a change. */
export function liveAcceptStages(settings: Pick<NodeSettings, 'current'>, context: StageContext): () => AcceptStages {
  const evaluator = createStageEvaluator(context);
  return live(settings, (current) => acceptStages(current, evaluator));
}

/** The value of a setting that depends on nothing; `otherwise` for one that does. */
export function constantOf<T extends ExpressionType>(
  schema: StageSchema<T>,
  source: ExpressionSource,
  otherwise: ExpressionValues[T],
): ExpressionValues[T] {
  return compiledOrNone(schema, source)?.constant ?? otherwise;
}

/** Undefined for what another release has stored and this one can't read: the evaluator says so, and gives its default, whenever it is asked. */
function compiledOrNone<T extends ExpressionType>(
  schema: StageSchema<T>,
  source: ExpressionSource,
): CompiledExpression<T> | undefined {
  try {
    return compiledSetting(schema, source).expression;
  } catch (error) {
    if (error instanceof ExpressionError) return undefined;
    throw error;
  }
}

class StageCompiler {
  constructor(private readonly evaluator: StageEvaluator) {}

  compile<T extends ExpressionType>(path: string, schema: StageSchema<T>, source: ExpressionSource): StageExpression<T> {
    const found = compiledOrNone(schema, source);
    return {
      type: found?.type as T,
      constant: found?.constant,
      mayWait: found?.mayWait ?? false,
      evaluate: (facts) => this.evaluator.evaluateStage(path, schema, source, facts),
    };
  }

  /** Undefined where it is as by default. */
  changed<T extends ExpressionType>(
    path: string,
    schema: StageSchema<T>,
    source: ExpressionSource,
  ): StageExpression<T> | undefined {
    const standard = schema.parse(undefined);
    return source === standard ? undefined : this.compile(path, schema, source);
  }
}

/** Without those that are undefined, so that `in` and `Object.keys` tell what is set. */
function present<T extends object>(all: { [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as T;
}

function acceptStages(settings: StageSettings, evaluator: StageEvaluator): AcceptStages {
  const compiler = new StageCompiler(evaluator);
  const scripts = scriptStagesOf(settings, (path, schema, source) => compiler.changed(path, schema, source));
  return {
    policy: policyStage(settings, compiler),
    ...steps(settings, compiler),
    ...counted(settings, compiler),
    ...screened(settings, compiler),
    ...(scripts && { scripts }),
  };
}

function policyStage({ smtp }: StageSettings, compiler: StageCompiler): PolicyStage {
  const { shape } = smtpSchema;
  return present<PolicyStage>({
    maxMessageBytes: compiler.changed('smtp.maxMessageBytes', shape.maxMessageBytes, smtp.maxMessageBytes),
    maxRecipients: compiler.changed('smtp.maxRecipients', shape.maxRecipients, smtp.maxRecipients),
    maxRecipientDomains: compiler.changed('smtp.maxRecipientDomains', shape.maxRecipientDomains, smtp.maxRecipientDomains),
    maxMessages: compiler.changed('smtp.maxMessagesPerSession', shape.maxMessagesPerSession, smtp.maxMessagesPerSession),
    maxErrors: compiler.changed('smtp.maxErrors', shape.maxErrors, smtp.maxErrors),
    maxRefusedRecipients: compiler.changed('smtp.maxRefusedRecipients', shape.maxRefusedRecipients, smtp.maxRefusedRecipients),
    commandTimeoutSeconds: compiler.changed(
      'smtp.commandTimeoutSeconds',
      shape.commandTimeoutSeconds,
      smtp.commandTimeoutSeconds,
    ),
    dataTimeoutSeconds: compiler.changed('smtp.dataTimeoutSeconds', shape.dataTimeoutSeconds, smtp.dataTimeoutSeconds),
    sessionTimeoutSeconds: compiler.changed(
      'smtp.sessionTimeoutSeconds',
      shape.sessionTimeoutSeconds,
      smtp.sessionTimeoutSeconds,
    ),
    maxHoldSeconds: compiler.changed('smtp.maxHoldSeconds', shape.maxHoldSeconds, smtp.maxHoldSeconds),
    minDeliverBySeconds: compiler.changed('smtp.minDeliverBySeconds', shape.minDeliverBySeconds, smtp.minDeliverBySeconds),
    requiresTls: compiler.changed('smtp.requireTls', shape.requireTls, smtp.requireTls),
    offersAuth: compiler.changed('smtp.offerAuth', shape.offerAuth, smtp.offerAuth),
    authMechanisms: compiler.changed('smtp.authMechanisms', shape.authMechanisms, smtp.authMechanisms),
    withheldExtensions: compiler.changed('smtp.withheldExtensions', shape.withheldExtensions, smtp.withheldExtensions),
    bareLineEnds: compiler.changed('smtp.bareLineEnds', shape.bareLineEnds, smtp.bareLineEnds),
    isTrustedPeer: compiler.changed('smtp.isTrustedPeer', shape.isTrustedPeer, smtp.isTrustedPeer),
    tarpitMs: compiler.changed('smtp.tarpitMilliseconds', shape.tarpitMilliseconds, smtp.tarpitMilliseconds),
    greetingDelayMs: compiler.changed(
      'smtp.greetingDelayMilliseconds',
      shape.greetingDelayMilliseconds,
      smtp.greetingDelayMilliseconds,
    ),
  });
}

type Steps = Pick<AcceptStages, 'connect' | 'ehlo' | 'auth' | 'mail' | 'rcpt' | 'data'>;

/** The inner object of a section with defaults. */
const inner = <S>(schema: { unwrap(): S }): S => schema.unwrap();

function steps({ accept, smtp }: StageSettings, compiler: StageCompiler): Steps {
  const { connect, ehlo, auth, mail, rcpt, data } = acceptSchema.shape;
  const [ofConnect, ofMail, ofRcpt, ofData] = [inner(connect).shape, inner(mail).shape, inner(rcpt).shape, inner(data).shape];
  const { shape: ofSmtp } = smtpSchema;
  return {
    connect: present<Steps['connect']>({
      refuse: compiler.changed('accept.connect.refuse', ofConnect.refuse, accept.connect.refuse),
      greeting: compiler.changed('accept.connect.greeting', ofConnect.greeting, accept.connect.greeting),
    }),
    ehlo: present<Steps['ehlo']>({
      refuse: compiler.changed('accept.ehlo.refuse', inner(ehlo).shape.refuse, accept.ehlo.refuse),
    }),
    auth: present<Steps['auth']>({
      refuse: compiler.changed('accept.auth.refuse', inner(auth).shape.refuse, accept.auth.refuse),
    }),
    mail: present<Steps['mail']>({
      refuse: compiler.changed('accept.mail.refuse', ofMail.refuse, accept.mail.refuse),
      rewrite: compiler.changed('accept.mail.rewrite', ofMail.rewrite, accept.mail.rewrite),
      mustMatchSender: compiler.changed('smtp.mustMatchSender', ofSmtp.mustMatchSender, smtp.mustMatchSender),
      minPriority: compiler.compile('accept.mail.minPriority', ofMail.minPriority, accept.mail.minPriority),
      maxPriority: compiler.compile('accept.mail.maxPriority', ofMail.maxPriority, accept.mail.maxPriority),
    }),
    rcpt: present<Steps['rcpt']>({
      refuse: compiler.changed('accept.rcpt.refuse', ofRcpt.refuse, accept.rcpt.refuse),
      rewrite: compiler.changed('accept.rcpt.rewrite', ofRcpt.rewrite, accept.rcpt.rewrite),
      relay: compiler.changed('accept.rcpt.relay', ofRcpt.relay, accept.rcpt.relay),
    }),
    data: present<Steps['data']>({
      refuse: compiler.changed('accept.data.refuse', ofData.refuse, accept.data.refuse),
      maxBytes: compiler.changed('accept.data.maxBytes', ofData.maxBytes, accept.data.maxBytes),
      maxReceivedFields: compiler.changed(
        'accept.data.maxReceivedFields',
        ofData.maxReceivedFields,
        accept.data.maxReceivedFields,
      ),
      addsReturnPath: compiler.changed('accept.data.addReturnPath', ofData.addReturnPath, accept.data.addReturnPath),
      addsReceived: compiler.changed('accept.data.addReceived', ofData.addReceived, accept.data.addReceived),
      addsDate: compiler.changed('accept.data.addDate', ofData.addDate, accept.data.addDate),
      addsMessageId: compiler.changed('accept.data.addMessageId', ofData.addMessageId, accept.data.addMessageId),
      mustMatchFromField: compiler.changed('smtp.mustMatchFromField', ofSmtp.mustMatchFromField, smtp.mustMatchFromField),
      queueName: compiler.changed('accept.data.queueName', ofData.queueName, accept.data.queueName),
    }),
  };
}

function counted({ limits }: StageSettings, compiler: StageCompiler): Pick<AcceptStages, 'rates' | 'concurrency' | 'quotas'> {
  const rates = limits.rates.map(({ name, stage, periodSeconds, ...rule }) => {
    const at = `limits.rates.${name}`;
    const ofRate = limitRules.rate;
    return {
      stage,
      name,
      periodSeconds,
      match: compiler.compile(`${at}.match`, ofRate.match, rule.match),
      key: compiler.compile(`${at}.key`, ofRate.key, rule.key),
      amount: compiler.compile(`${at}.amount`, ofRate.amount, rule.amount),
      count: compiler.compile(`${at}.count`, ofRate.count, rule.count),
      reply: compiler.compile(`${at}.reply`, ofRate.reply, rule.reply),
    };
  });
  const concurrency = limits.concurrency.map(({ name, stage, ...rule }) => {
    const at = `limits.concurrency.${name}`;
    const ofConcurrency = limitRules.concurrency;
    return {
      stage,
      name,
      match: compiler.compile(`${at}.match`, ofConcurrency.match, rule.match),
      key: compiler.compile(`${at}.key`, ofConcurrency.key, rule.key),
      max: compiler.compile(`${at}.max`, ofConcurrency.max, rule.max),
      reply: compiler.compile(`${at}.reply`, ofConcurrency.reply, rule.reply),
    };
  });
  const quotas = limits.quotas.map(({ name, ...rule }) => {
    const at = `limits.quotas.${name}`;
    const ofQuota = limitRules.quota;
    return {
      name,
      match: compiler.compile(`${at}.match`, ofQuota.match, rule.match),
      key: compiler.compile(`${at}.key`, ofQuota.key, rule.key),
      maxMessages: compiler.compile(`${at}.maxMessages`, ofQuota.maxMessages, rule.maxMessages),
      maxBytes: compiler.compile(`${at}.maxBytes`, ofQuota.maxBytes, rule.maxBytes),
    };
  });
  const ratesAt = countedStages.map((stage) => [stage, rates.filter((rule) => rule.stage === stage)] as const);
  return {
    rates: Object.fromEntries(ratesAt) as unknown as AcceptStages['rates'],
    concurrency: {
      connect: concurrency.filter(({ stage }) => stage === 'connect'),
      auth: concurrency.filter(({ stage }) => stage === 'auth'),
    },
    quotas,
  };
}

type Screened = Pick<AcceptStages, 'isKnownClient' | 'greylist' | 'traps' | 'blocklists'>;

function screened({ screening }: StageSettings, compiler: StageCompiler): Screened {
  const { knownClients, greylist, traps, blocklists } = screening;
  const { greylist: ofGreylist, traps: ofTraps, blocklists: ofBlocklists, zone: ofZone } = screeningStages;
  const isOn = compiler.changed('screening.greylist.enabled', ofGreylist.enabled, greylist.enabled);
  const isTrap = compiler.changed('screening.traps.match', ofTraps.match, traps.match);
  const hasTraps = isTrap !== undefined || traps.lists.length > 0;
  return {
    isKnownClient: networkSet(knownClients),
    ...(isOn && {
      greylist: {
        isOn,
        delaySeconds: compiler.compile('screening.greylist.delaySeconds', ofGreylist.delaySeconds, greylist.delaySeconds),
        windowSeconds: compiler.compile('screening.greylist.windowSeconds', ofGreylist.windowSeconds, greylist.windowSeconds),
        lifetimeSeconds: compiler.compile(
          'screening.greylist.lifetimeSeconds',
          ofGreylist.lifetimeSeconds,
          greylist.lifetimeSeconds,
        ),
      },
    }),
    ...(hasTraps && {
      traps: {
        lists: traps.lists,
        action: compiler.compile('screening.traps.action', ofTraps.action, traps.action),
        banSeconds: compiler.compile('screening.traps.banSeconds', ofTraps.banSeconds, traps.banSeconds),
        ...(isTrap && { isTrap }),
      },
    }),
    ...(blocklists.zones.length > 0 && {
      blocklists: {
        isOn: compiler.compile('screening.blocklists.enabled', ofBlocklists.enabled, blocklists.enabled),
        zones: blocklists.zones.map(({ zone, answers, weight, timeoutMilliseconds }) => ({
          zone: zone.toLowerCase(),
          answers: networkSet(answers),
          weight: compiler.compile(`screening.blocklists.zones.${zone}.weight`, ofZone.weight, weight),
          timeoutMs: timeoutMilliseconds,
        })),
        refuseAtWeight: compiler.compile(
          'screening.blocklists.refuseAtWeight',
          ofBlocklists.refuseAtWeight,
          blocklists.refuseAtWeight,
        ),
        cacheSeconds: blocklists.cacheSeconds,
        reply: compiler.compile('screening.blocklists.reply', ofBlocklists.reply, blocklists.reply),
      },
    }),
  };
}
