/**
 * The stages at work: one room for each set of settings, asked by `receive.ts` at every step of a session. Each method says what there is to refuse; where
 * nothing is set, `does` says so, and nobody comes here.
 */

import type { Principal } from '../../../protocols/sasl/contract.js';
import type { Reply } from '../../../protocols/smtp/grammar/index.js';
import type { RecipientCommand, SessionInfo } from '../../../protocols/smtp/server/handler.js';
import { isBarePostmaster } from '../postmaster.js';
import { replies } from '../replies.js';
import type { ReceiverDependencies } from '../types.js';
import type { Asker } from './ask.js';
import { type ContentRules, contentRules } from './content-rules.js';
import { ContentScript } from './content-script.js';
import type { AcceptStages, ScriptStage } from './contract.js';
import { overConcurrency, overRate } from './counted.js';
import { asksForOptions, grantOptions } from './delivery-options.js';
import { connectionFacts, type Facts, mailFacts, type NodeFacts, recipientFacts } from './facts.js';
import { after, type MaybePromise } from './maybe.js';
import { stageVerdicts } from './metrics.js';
import { rewrittenRecipient, rewrittenSender } from './paths.js';
import { createPolicyRoom, type PolicyRoom } from './policy.js';
import { overQuota } from './quotas.js';
import { isPostmaster } from './recipient.js';
import { refusalOf, refusals } from './refusal.js';
import type { Screening } from './screening.js';
import { ScriptRoom, type ScriptSubject, type ScriptVerdict } from './scripts.js';
import { type SlotHolder, stateOf, type Transaction } from './state.js';

export interface StageRoomDependencies {
  asker: Asker;
  screening: Screening;
  receiver: Pick<ReceiverDependencies, 'limits' | 'queue' | 'settings' | 'clock' | 'lookups' | 'directory' | 'mail'>;
  node: () => NodeFacts;
}

/** What a recipient became: an address, and whether its mail is thrown away. */
export interface AdmittedRecipient {
  address: string;
  isDropped: boolean;
  /** Of a script that sends its mail to others besides, or instead. */
  script?: ScriptVerdict;
}

export class StageRoom {
  /** What there is to ask at each step. */
  readonly does: Record<'connect' | 'ehlo' | 'auth' | 'mail' | 'rcpt', boolean>;
  readonly policy: PolicyRoom;
  /** Undefined where no stage has a script. */
  readonly scripts: ScriptRoom | undefined;
  readonly #d: StageRoomDependencies;

  constructor(
    readonly stages: AcceptStages,
    dependencies: StageRoomDependencies,
  ) {
    this.#d = dependencies;
    const { asker, node } = dependencies;
    this.policy = createPolicyRoom(stages.policy, asker, node);
    const { clock, lookups } = dependencies.receiver;
    const scripts = stages.scripts && new ScriptRoom(stages.scripts, { asker, clock, ...(lookups && { lookups }) });
    this.scripts = scripts;
    const hasScript = (stage: ScriptStage) => scripts?.has(stage) ?? false;
    const { connect, ehlo, auth, mail, rcpt, rates, concurrency, greylist, traps, blocklists, quotas } = stages;
    this.does = {
      connect:
        [connect.refuse, connect.greeting].some((each) => each !== undefined) ||
        hasScript('connect') ||
        rates.connect.length + concurrency.connect.length > 0,
      ehlo: ehlo.refuse !== undefined || hasScript('ehlo'),
      auth: auth.refuse !== undefined || hasScript('auth') || rates.auth.length + concurrency.auth.length > 0,
      mail: mail.refuse !== undefined || mail.rewrite !== undefined || hasScript('mail') || rates.mail.length > 0,
      rcpt:
        [rcpt.refuse, rcpt.rewrite, greylist, traps, blocklists].some((each) => each !== undefined) ||
        hasScript('rcpt') ||
        rates.rcpt.length + quotas.length > 0,
    };
  }

  /** At connect: whoever may be on a blocklist is looked up meanwhile. */
  beginLook(session: SessionInfo): void {
    if (!this.stages.blocklists) return;
    this.#d.screening.beginLook(this.stages, session, () => this.#connection(session));
  }

  /** Before the greeting: a refusal, or a greeting of the operator's. */
  async connect(session: SessionInfo): Promise<Reply | undefined> {
    const { asker } = this.#d;
    const { connect, rates, concurrency } = this.stages;
    const facts = this.#connectionOnce(session);
    const refusal = connect.refuse && refusalOf(await asker.ask(connect.refuse, facts), refusals.connect);
    if (refusal) return this.#refused(refusal);
    const limited =
      (await this.#overConcurrency(session, 'connection', concurrency.connect, facts)) ??
      (await this.#overRate(rates.connect, facts));
    if (limited) {
      // Who is sent away must not keep others out while he takes his time to hang up.
      stateOf(session).giveBack('connection');
      return { ...limited, code: 421, enhanced: '4.7.0' };
    }
    const scripted = await this.#script('connect', session, facts);
    if (scripted?.refusal) {
      stateOf(session).giveBack('connection');
      return scripted.refusal;
    }
    const text = connect.greeting && (await asker.ask(connect.greeting, facts));
    return text ? { code: 220, text } : undefined;
  }

  /** @param helo which the session has not taken yet. */
  async ehlo(session: SessionInfo, helo: string): Promise<Reply | undefined> {
    const { refuse } = this.stages.ehlo;
    const facts = () => ({ ...this.#connection(session), helo });
    const refusal = refuse && refusalOf(await this.#d.asker.ask(refuse, facts), refusals.ehlo);
    if (refusal) return this.#refused(refusal);
    return (await this.#script('ehlo', session, facts))?.refusal;
  }

  async authenticated(session: SessionInfo, { login }: Pick<Principal, 'login'>): Promise<Reply | undefined> {
    const { auth, rates, concurrency } = this.stages;
    const facts = () => ({ ...this.#connection(session), authenticated_as: login });
    const refusal = auth.refuse && refusalOf(await this.#d.asker.ask(auth.refuse, facts), refusals.auth);
    if (refusal) return this.#refused(refusal);
    const state = stateOf(session);
    // A login that came to nothing in the end (the session's policy could not be asked) is no login any more.
    state.giveBack('login');
    const limited =
      (await this.#overConcurrency(session, 'login', concurrency.auth, facts)) ??
      (await this.#overRate(rates.auth, facts)) ??
      (await this.#script('auth', session, facts))?.refusal;
    // He may try again on this connection, and would hold one more each time.
    if (limited) state.giveBack('login');
    return limited;
  }

  /** Whether a user's reverse-path must be theirs. */
  mustMatchSender(session: SessionInfo, transaction: Transaction): MaybePromise<boolean> {
    const { mustMatchSender } = this.stages.mail;
    if (!mustMatchSender) return this.#d.receiver.settings().senderMustMatch;
    return this.#d.asker.ask(mustMatchSender, () => this.#mail(session, transaction));
  }

  /** Refuses a sender, or puts what is used into the transaction. */
  mail(session: SessionInfo, transaction: Transaction): MaybePromise<Reply | undefined> {
    if (!this.does.mail && !asksForOptions(transaction.mail.parameters)) return undefined;
    return this.#admitMail(session, transaction);
  }

  async #admitMail(session: SessionInfo, transaction: Transaction): Promise<Reply | undefined> {
    const { asker, receiver } = this.#d;
    const { mail, rates } = this.stages;
    const facts = () => this.#mail(session, transaction);
    const limited = await this.#overRate(rates.mail, facts);
    if (limited) return limited;
    const refusal = mail.refuse && refusalOf(await asker.ask(mail.refuse, facts), refusals.mail);
    if (refusal) return this.#refused(refusal);
    const { parameters } = transaction.mail;
    if (asksForOptions(parameters)) {
      const granted = await grantOptions(this.stages, asker, parameters, facts, receiver.clock.nowMs());
      if ('refusal' in granted) return granted.refusal;
      transaction.options = granted;
      transaction.facts = undefined;
    }
    if (mail.rewrite) {
      const sender = rewrittenSender(await asker.ask(mail.rewrite, facts));
      if (sender === undefined) return this.#badRewrite(session, 'accept.mail.rewrite');
      transaction.sender = sender;
      transaction.facts = undefined;
    }
    const scripted = await this.#script('mail', session, facts, { transaction });
    if (scripted && !scripted.isKept && !scripted.refusal) transaction.isDiscarded = true;
    return scripted?.refusal;
  }

  /** All that is asked of a recipient before the directory is. */
  async recipient(session: SessionInfo, transaction: Transaction, command: RecipientCommand): Promise<AdmittedRecipient | Reply> {
    const { asker, screening } = this.#d;
    const { stages } = this;
    let address = command.address;
    const facts = this.#recipientOnce(session, transaction, command);
    const limited = await this.#overRate(stages.rates.rcpt, facts);
    if (limited) return limited;
    const trapped = await screening.trapped(stages, session, transaction, address, facts);
    if (trapped === 'drop') return { address, isDropped: true };
    if (trapped !== 'no') return trapped;
    // Who is kept out by mistake must be able to say so (RFC 5321 4.5.1).
    if (!isPostmaster(address)) {
      const listed = await screening.blocklisted(stages, session, transaction, facts);
      if (listed) return listed;
      const { refuse } = stages.rcpt;
      const refusal = refuse && refusalOf(await asker.ask(refuse, facts), refusals.rcpt);
      if (refusal) return this.#refused(refusal);
    }
    if (stages.rcpt.rewrite && !isBarePostmaster(address)) {
      const rewritten = rewrittenRecipient(await asker.ask(stages.rcpt.rewrite, facts));
      if (rewritten === undefined) return this.#badRewrite(session, 'accept.rcpt.rewrite');
      address = rewritten;
    }
    // Who is kept out by mistake must reach somebody who reads it.
    if (isPostmaster(address)) return { address, isDropped: false };
    const script = await this.#script('rcpt', session, facts, { transaction, recipients: [address], commands: [command] });
    if (script?.refusal) return script.refusal;
    if (!script || (script.isKept && script.redirects.length === 0)) return { address, isDropped: false };
    return script.redirects.length === 0 ? { address, isDropped: true } : { address, isDropped: false, script };
  }

  /** Whether this client may send to domains that are not ours. */
  mayRelay(session: SessionInfo, transaction: Transaction, command: RecipientCommand): MaybePromise<boolean> {
    const { relay } = this.stages.rcpt;
    if (!relay) return session.principal !== undefined;
    return this.#d.asker.ask(relay, this.#recipientOnce(session, transaction, command));
  }

  /** What is asked last, once a recipient is known to exist: room in the queue, greylisting. */
  async lastChecks(session: SessionInfo, transaction: Transaction, command: RecipientCommand): Promise<Reply | undefined> {
    const { asker, screening, receiver } = this.#d;
    const { quotas } = this.stages;
    const facts = this.#recipientOnce(session, transaction, command);
    if (quotas.length > 0) {
      const sizeBytes = transaction.mail.parameters.sizeBytes ?? 0;
      const over = await overQuota(quotas, { asker, queue: receiver.queue }, transaction.countedUnder, sizeBytes, facts);
      if (over) return over;
    }
    return screening.greylisted(this.stages, session, transaction, command.address, facts);
  }

  /** At DATA or the first BDAT. */
  data(session: SessionInfo, transaction: Transaction): MaybePromise<ContentRules | Reply> {
    const facts = () => this.#mail(session, transaction);
    const { rates, data } = this.stages;
    const rules = () => contentRules(data, this.#d.asker, this.#d.receiver.settings(), session.mode, facts);
    if (rates.data.length === 0) return rules();
    return this.#overRate(rates.data, facts).then((limited) => limited ?? rules());
  }

  /** The whole message is there. */
  content(session: SessionInfo, transaction: Transaction, sizeBytes: number): MaybePromise<Reply | undefined> {
    const { refuse } = this.stages.data;
    if (!refuse) return undefined;
    return after(
      this.#d.asker.ask(refuse, () => this.#whole(session, transaction, sizeBytes)),
      (text) => {
        const refusal = refusalOf(text, refusals.data);
        return refusal && this.#refused(refusal);
      },
    );
  }

  /** Watches a message's content for the script that decides at its end; undefined: there is none. */
  contentScript(session: SessionInfo, transaction: Transaction): ContentScript | undefined {
    const { scripts } = this;
    if (!scripts?.has('data')) return undefined;
    const facts = (sizeBytes: number) => this.#whole(session, transaction, sizeBytes);
    return new ContentScript({ scripts, routing: this.#d.receiver, session, transaction, facts });
  }

  /** The virtual queue for what is sent on; undefined: the default one. */
  queueName(session: SessionInfo, transaction: Transaction, sizeBytes: number): MaybePromise<string | undefined> {
    const { queueName } = this.stages.data;
    if (!queueName) return undefined;
    return after(
      this.#d.asker.ask(queueName, () => this.#whole(session, transaction, sizeBytes)),
      (name) => (/^[a-z0-9][a-z0-9_-]{0,62}$/.test(name) && name !== 'default' ? name : undefined),
    );
  }

  // ---- facts ----

  #connection(session: SessionInfo): Facts {
    return connectionFacts(session, this.#d.node());
  }

  #connectionOnce(session: SessionInfo): () => Facts {
    let facts: Facts | undefined;
    return () => (facts ??= this.#connection(session));
  }

  #mail(session: SessionInfo, transaction: Transaction): Facts {
    transaction.facts ??= {
      ...mailFacts(session, this.#d.node(), transaction.mail, transaction.sender),
      priority: transaction.options.priority,
    };
    transaction.facts.rcpt_count = transaction.recipients.size;
    return transaction.facts;
  }

  #whole(session: SessionInfo, transaction: Transaction, sizeBytes: number): Facts {
    return { ...this.#mail(session, transaction), size: sizeBytes };
  }

  #recipientOnce(session: SessionInfo, transaction: Transaction, command: RecipientCommand): () => Facts {
    let facts: Facts | undefined;
    return () => (facts ??= recipientFacts(this.#mail(session, transaction), command, transaction.recipients.size));
  }

  // ---- verdicts ----

  #script(
    stage: ScriptStage,
    session: SessionInfo,
    facts: () => Facts,
    subject: ScriptSubject = {},
  ): MaybePromise<ScriptVerdict | undefined> {
    return this.scripts?.has(stage) ? this.scripts.run(stage, session, facts, subject) : undefined;
  }

  #overRate(rules: AcceptStages['rates']['mail'], facts: () => Facts): Promise<Reply | undefined> {
    const { limits } = this.#d.receiver;
    if (rules.length === 0 || !limits) return Promise.resolve(undefined);
    return overRate({ asker: this.#d.asker, rates: limits.rates }, rules, facts);
  }

  #overConcurrency(
    session: SessionInfo,
    holder: SlotHolder,
    rules: AcceptStages['concurrency']['connect'],
    facts: () => Facts,
  ): Promise<Reply | undefined> {
    const { limits } = this.#d.receiver;
    if (rules.length === 0 || !limits) return Promise.resolve(undefined);
    const state = stateOf(session);
    return overConcurrency({ asker: this.#d.asker, concurrency: limits.concurrency }, rules, facts, (release) =>
      state.hold(holder, release),
    );
  }

  #refused(refusal: Reply): Reply {
    stageVerdicts.inc({ check: 'refuse', result: refusal.code >= 500 ? 'refused' : 'deferred' });
    return refusal;
  }

  #badRewrite(session: SessionInfo, setting: string): Reply {
    session.logger.error({ setting }, 'a rewriting rule gives something that is no address');
    return replies.badRewrite;
  }
}
