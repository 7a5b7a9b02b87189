/** Whether a client that nobody knows may name a recipient: spam traps, DNS blocklists, greylisting. */
import type { Reply } from '../../../protocols/smtp/grammar/index.js';
import type { SessionInfo } from '../../../protocols/smtp/server/handler.js';
import type { Bans, Greylist, GreylistRule } from '../../../store/limits/contract.js';
import type { Lookups } from '../../../store/lookups/contract.js';
import { replies } from '../replies.js';
import type { Asker } from './ask.js';
import type { BlocklistLook, Blocklists } from './blocklists.js';
import type { AcceptStages, BlocklistStage, GreylistStage, TrapStage } from './contract.js';
import type { Facts } from './facts.js';
import { after, type MaybePromise } from './maybe.js';
import { stageVerdicts } from './metrics.js';
import { bannableNetwork, isPrivateAddress, networkOf } from './networks.js';
import { refusalOf, refusals, withDelay } from './refusal.js';
import { type SessionState, stateOf, type Transaction } from './state.js';

export interface ScreeningDependencies {
  asker: Asker;
  blocklists?: Blocklists;
  greylist?: Greylist;
  bans?: Pick<Bans, 'add'>;
  lookups?: Pick<Lookups, 'get'>;
  /** Members of the cluster and trusted proxies, which nobody judges. */
  isOwnAddress?: (address: string) => boolean;
  nowMs: () => number;
}

export class Screening {
  readonly #d: ScreeningDependencies;

  constructor(dependencies: ScreeningDependencies) {
    this.#d = dependencies;
  }

  /** Who has logged in, delivers over LMTP, or is known is not screened. */
  isTrusted(stages: AcceptStages, session: SessionInfo): boolean {
    const { principal, mode, remoteAddress } = session;
    if (principal !== undefined || mode === 'lmtp') return true;
    return stages.isKnownClient(remoteAddress) || (this.#d.isOwnAddress?.(remoteAddress) ?? false);
  }

  /** At connect: begins to look; nobody waits. */
  beginLook(stages: AcceptStages, session: SessionInfo, facts: () => Facts): void {
    const { blocklists: stage } = stages;
    // Users come from everywhere, and log in.
    if (!stage || session.mode !== 'mx') return;
    const began = this.#look(stages, stage, session, facts);
    // It is asked again, and fails there, where a reply can say so.
    if (began instanceof Promise) began.catch(() => undefined);
  }

  #look(
    stages: AcceptStages,
    stage: BlocklistStage,
    session: SessionInfo,
    facts: () => Facts,
  ): MaybePromise<BlocklistLook | undefined> {
    const { blocklists } = this.#d;
    const { remoteAddress } = session;
    if (!blocklists || this.isTrusted(stages, session) || isPrivateAddress(remoteAddress)) return undefined;
    // Asked each time: at connect nothing was known of the client but its address.
    return after(this.#d.asker.ask(stage.isOn, facts), (isOn) => {
      if (!isOn) return undefined;
      const state = stateOf(session);
      // After XCLIENT it is another client.
      if (state.look?.address !== remoteAddress) state.look = blocklists.look(remoteAddress, stage);
      return state.look;
    });
  }

  /** At RCPT. */
  async blocklisted(
    stages: AcceptStages,
    session: SessionInfo,
    transaction: Transaction,
    facts: () => Facts,
  ): Promise<Reply | undefined> {
    const stage = stages.blocklists;
    if (!stage || session.mode !== 'mx') return undefined;
    const look = await this.#look(stages, stage, session, facts);
    if (!look) return undefined;
    const listedBy = await look.listedBy;
    if (listedBy.length === 0) {
      transaction.checks['blocklists'] = 'none';
      return undefined;
    }
    const { asker } = this.#d;
    const weights = await Promise.all(listedBy.map(({ weight }) => asker.ask(weight, facts)));
    const sum = weights.reduce((one, other) => one + other, 0);
    transaction.checks['blocklists'] = `${listedBy.map(({ zone }) => zone).join(' ')} (weight ${sum})`;
    if (sum < (await asker.ask(stage.refuseAtWeight, facts))) return undefined;
    stageVerdicts.inc({ check: 'blocklist', result: 'refused' });
    const own = refusalOf(await asker.ask(stage.reply, facts), refusals.blocklisted);
    if (own) return own;
    const heaviest = listedBy[weights.indexOf(Math.max(...weights))]!;
    const text = await look.textOf(heaviest);
    const said = text === undefined ? '' : `: ${text.replace(/[^ -~]+/g, '?')}`;
    return { ...refusals.blocklisted, text: `${session.remoteAddress} is listed by ${heaviest.zone}${said}` };
  }

  /** At RCPT: `drop` where the recipient is a trap and the client is to believe that its mail was taken. */
  async trapped(
    stages: AcceptStages,
    session: SessionInfo,
    transaction: Transaction,
    address: string,
    facts: () => Facts,
  ): Promise<'no' | 'drop' | Reply> {
    const { traps } = stages;
    if (!traps || session.mode !== 'mx' || session.principal) return 'no';
    if (!(await this.#isTrap(traps, address.toLowerCase(), facts))) return 'no';
    const { asker } = this.#d;
    const isDropped = (await asker.ask(traps.action, facts)) === 'drop';
    stageVerdicts.inc({ check: 'spam-trap', result: isDropped ? 'dropped' : 'refused' });
    transaction.checks['spam-trap'] = address;
    session.logger.info({ trap: address, from: transaction.sender }, 'mail for a spam trap');
    // A report of somebody's mail under a trap's name: whoever forged that would have the honest server banned that sends it back.
    const isReport = transaction.mail.address === '';
    if (!isReport && !this.isTrusted(stages, session)) {
      const banSeconds = await asker.ask(traps.banSeconds, facts);
      if (banSeconds > 0) this.#report(session, banSeconds, address);
    }
    return isDropped ? 'drop' : replies.unknownRecipient;
  }

  async #isTrap(traps: TrapStage, address: string, facts: () => Facts): Promise<boolean> {
    const { asker, lookups } = this.#d;
    if (traps.isTrap && (await asker.ask(traps.isTrap, facts))) return true;
    if (!lookups) return false;
    for (const list of traps.lists) {
      const value = await asker.lenient('spam-trap', () => lookups.get(list, address), undefined);
      if (value !== undefined) return true;
    }
    return false;
  }

  /** Asks for the ban and goes on: this session ends by itself, the next one is not let in. */
  #report(session: SessionInfo, banSeconds: number, address: string): void {
    const { bans, asker, nowMs } = this.#d;
    const state: SessionState = stateOf(session);
    if (!bans || state.isReported) return;
    state.isReported = true;
    const ban = {
      network: bannableNetwork(session.remoteAddress),
      reason: 'spam-trap',
      note: `Sent mail to the trap ${address}`,
      untilMs: nowMs() + banSeconds * 1000,
    };
    void asker.lenient('ban', () => bans.add(ban), undefined);
  }

  /** At RCPT, the last of all checks: what is refused anyway need not come again. */
  async greylisted(
    stages: AcceptStages,
    session: SessionInfo,
    transaction: Transaction,
    recipient: string,
    facts: () => Facts,
  ): Promise<Reply | undefined> {
    const { greylist: stage } = stages;
    const { greylist, asker } = this.#d;
    if (!stage || !greylist || session.mode !== 'mx') return undefined;
    const isExempt = this.isTrusted(stages, session) || !(await asker.ask(stage.isOn, facts));
    if (isExempt) {
      transaction.checks['greylist'] ??= 'exempt';
      return undefined;
    }
    const rule = await this.#greylistRule(stage, facts);
    return this.#greylisted(rule, greylist, session, transaction, recipient);
  }

  async #greylistRule(stage: GreylistStage, facts: () => Facts): Promise<GreylistRule> {
    const { asker } = this.#d;
    const delaySeconds = await asker.ask(stage.delaySeconds, facts);
    const windowSeconds = await asker.ask(stage.windowSeconds, facts);
    const lifetimeSeconds = await asker.ask(stage.lifetimeSeconds, facts);
    // Who may come back only when it is too late would never be let in.
    return { delaySeconds, windowSeconds: windowSeconds > delaySeconds ? windowSeconds : 2 * delaySeconds, lifetimeSeconds };
  }

  async #greylisted(
    rule: GreylistRule,
    greylist: Greylist,
    session: SessionInfo,
    transaction: Transaction,
    recipient: string,
  ): Promise<Reply | undefined> {
    const triplet = {
      network: networkOf(session.remoteAddress),
      sender: transaction.sender.toLowerCase(),
      recipient: recipient.toLowerCase(),
    };
    const verdict = await this.#d.asker.lenient('greylist', () => greylist.check(triplet, rule), undefined);
    if (verdict === undefined || verdict.isAllowed) {
      transaction.checks['greylist'] = verdict === undefined ? 'not made' : 'passed';
      return undefined;
    }
    stageVerdicts.inc({ check: 'greylist', result: 'deferred' });
    return withDelay(refusals.greylisted, verdict.retryAfterSeconds);
  }
}
