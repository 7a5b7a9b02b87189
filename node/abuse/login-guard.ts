/**
 * What wrong passwords cost, on all nodes and in all protocols: delays, then refusals, then a ban of the address. Judged by address and by (address, login); a
 * login that has worked from the address's network is delayed at most, so strangers can't shut out a victim, and an address from which users log in is never
 * banned for what somebody else does behind the same NAT (TRAPS 35).
 */
import { type Clock, counter, type Logger } from '../../ops/telemetry/index.js';
import type { Ban, Bans, LoginAttempt, LoginGuard } from '../../store/limits/contract.js';
import { type KnownLogins, networkOf, type OpenRateLimiter } from '../../store/limits/index.js';
import type { AbuseSettings } from '../settings/schemas/abuse.js';
import { AttemptsUnderWay } from './attempts.js';

/** `result`: free, delayed, refused_address, refused_login, banned (on a connection that was open before). */
const admissionsTotal = counter('starling_login_admissions_total', 'Login attempts, by what the guard said.', [
  'protocol',
  'result',
]);
const errorsTotal = counter(
  'starling_login_guard_errors_total',
  'Times that the guard could not ask or write the store, and was lenient.',
);
const bansTotal = counter('starling_login_bans_total', 'Addresses that guessed passwords and were banned for it by this node.');

const dayMs = 86_400_000;
/** Within which a further ban is longer than the last. */
const banMemorySeconds = 30 * 86_400;
/** Names of the counters in the store. */
const byAddress = 'login.address';
const byLogin = 'login.pair';
const byBan = 'login.bans';

export interface LoginGuardDependencies {
  rates: Pick<OpenRateLimiter, 'count' | 'uses' | 'reset'>;
  knownLogins: KnownLogins;
  bans: Pick<Bans, 'find' | 'add'>;
  clock: Clock;
  logger: Logger;
  /** Asked at each attempt. */
  settings: () => AbuseSettings;
  /** Members, trusted proxies (webmail, balancers): many users come from there, so only (address, login) is judged. */
  isExempt?(address: string): boolean;
  /** Whether there is such a login; asked after a failure when the attempt does not say. */
  isLogin?(login: string): Promise<boolean>;
}

export function createLoginGuard(deps: LoginGuardDependencies): LoginGuard {
  return new Guard(deps);
}

/** An attempt as it is counted. */
interface Subject {
  /** The address, or the IPv6 /64. */
  address: string;
  network: string;
  login: string;
  /** Key of (address, login). */
  pair: string;
  isExempt: boolean;
}

interface Verdict {
  isAdmitted: boolean;
  delayMs: number;
  result: 'free' | 'delayed' | 'refused_address' | 'refused_login' | 'banned';
}

class Guard implements LoginGuard {
  readonly #underWay: AttemptsUnderWay;
  /** Addresses whose ban is being made: several failures at once are no second ban, which would be longer. */
  readonly #banning = new Set<string>();

  constructor(readonly deps: LoginGuardDependencies) {
    this.#underWay = new AttemptsUnderWay(deps.clock);
  }

  async admit(attempt: LoginAttempt): Promise<{ isAdmitted: boolean; delayMs: number }> {
    const settings = this.deps.settings();
    if (!settings.guardsLogins) return { isAdmitted: true, delayMs: 0 };
    try {
      const { isAdmitted, delayMs, result } = await this.#judge(this.#subjectOf(attempt), settings, attempt.remoteAddress);
      admissionsTotal.inc({ protocol: attempt.protocol, result });
      return { isAdmitted, delayMs };
    } catch (error) {
      this.#failed(error);
      return { isAdmitted: true, delayMs: settings.firstDelayMilliseconds };
    }
  }

  async record(attempt: LoginAttempt, isGood: boolean): Promise<void> {
    const settings = this.deps.settings();
    if (!settings.guardsLogins) return;
    const subject = this.#subjectOf(attempt);
    this.#underWay.end(subject.address);
    this.#underWay.end(subject.pair);
    try {
      await (isGood ? this.#recordGood(subject, settings) : this.#recordBad(subject, settings, attempt));
    } catch (error) {
      this.#failed(error);
    }
  }

  async #judge(subject: Subject, settings: AbuseSettings, remoteAddress: string): Promise<Verdict> {
    const { rates, knownLogins, bans } = this.deps;
    if (bans.find(remoteAddress)) return { isAdmitted: false, delayMs: 0, result: 'banned' };
    const [ofAddress, ofPair] = await Promise.all([
      subject.isExempt ? 0 : rates.uses(byAddress, subject.address, settings.addressWindowSeconds),
      rates.uses(byLogin, subject.pair, settings.loginWindowSeconds),
    ]);
    // Nothing wrong so far, as nearly always: nothing to look up.
    if (ofAddress === 0 && ofPair === 0) return { isAdmitted: true, delayMs: 0, result: 'free' };
    const isKnown = await knownLogins.isKnown(subject.network, subject.login);
    const atOnce = { address: this.#underWay.begin(subject.address), pair: this.#underWay.begin(subject.pair) };
    if (isKnown) return delayed(ofPair, settings, atOnce.pair);
    const refuse = (result: Verdict['result']): Verdict => {
      this.#underWay.end(subject.address);
      this.#underWay.end(subject.pair);
      return { isAdmitted: false, delayMs: 0, result };
    };
    if (ofPair + atOnce.pair >= settings.maxFailuresPerLogin) return refuse('refused_login');
    if (!subject.isExempt && ofAddress + atOnce.address >= settings.maxFailuresPerAddress) return refuse('refused_address');
    // Many logins with one failure each look harmless one by one: the address's points delay as well.
    return delayed(Math.max(ofPair, ofAddress - settings.freeFailures), settings, Math.max(atOnce.pair, atOnce.address));
  }

  async #recordGood(subject: Subject, settings: AbuseSettings): Promise<void> {
    const { rates, knownLogins } = this.deps;
    await knownLogins.remember(subject, subject.login, settings.knownNetworkDays * dayMs);
    // What the address owes for other logins stays: it could be an attacker's own account.
    const ofPair = await rates.uses(byLogin, subject.pair, settings.loginWindowSeconds);
    if (ofPair > 0) await rates.reset(byLogin, subject.pair, settings.loginWindowSeconds);
  }

  async #recordBad(subject: Subject, settings: AbuseSettings, attempt: LoginAttempt): Promise<void> {
    const { rates, knownLogins } = this.deps;
    const ofPair = await rates.count(byLogin, subject.pair, settings.loginWindowSeconds);
    if (subject.isExempt) return;
    const isKnown = await knownLogins.isKnown(subject.network, subject.login);
    // A telephone that has not heard of the new password: not the address's fault, unless it never ends.
    if (isKnown && ofPair <= settings.maxFailuresPerLogin) return;
    const points = isKnown ? 1 : await this.#points(ofPair, settings, attempt);
    const ofAddress = await rates.count(byAddress, subject.address, settings.addressWindowSeconds, points);
    if (ofAddress >= settings.maxFailuresPerAddress) await this.#ban(subject, settings, attempt, ofAddress);
  }

  async #points(ofPair: number, settings: AbuseSettings, attempt: LoginAttempt): Promise<number> {
    const isUnknown = attempt.isUnknownLogin ?? (this.deps.isLogin ? !(await this.deps.isLogin(attempt.login)) : false);
    if (isUnknown) return settings.unknownLoginPoints;
    return ofPair <= 1 ? settings.newLoginPoints : 1;
  }

  async #ban(subject: Subject, settings: AbuseSettings, attempt: LoginAttempt, points: number): Promise<void> {
    const { address } = subject;
    if (!settings.bansAddresses || this.#banning.has(address) || this.deps.bans.find(attempt.remoteAddress)) return;
    this.#banning.add(address);
    try {
      await this.#makeBan(subject, settings, attempt, points);
    } finally {
      this.#banning.delete(address);
    }
  }

  async #makeBan(subject: Subject, settings: AbuseSettings, { protocol }: LoginAttempt, points: number): Promise<void> {
    const { bans, knownLogins, rates, clock, logger } = this.deps;
    if (await knownLogins.isAddressKnown(subject.address)) {
      logger.warn(
        { address: subject.address, points, protocol },
        'passwords are guessed from an address that users log in from; it is not banned',
      );
      return;
    }
    const before = (await rates.count(byBan, subject.address, banMemorySeconds)) - 1;
    const seconds = Math.min(settings.maxBanSeconds, settings.banSeconds * 2 ** Math.min(before, 30));
    const ban: Omit<Ban, 'bannedAtMs'> = {
      network: subject.address,
      reason: 'login',
      note: `${points} points for wrong passwords, the last one over ${protocol}`,
      untilMs: Math.floor(clock.nowMs()) + seconds * 1000,
    };
    await bans.add(ban);
    bansTotal.inc();
  }

  #subjectOf({ remoteAddress, login }: LoginAttempt): Subject {
    const address = networkOf(remoteAddress, { ipv4: 32, ipv6: 64 });
    const lower = login.toLowerCase();
    const isExempt = this.deps.isExempt?.(remoteAddress) ?? false;
    return { address, network: networkOf(remoteAddress), login: lower, pair: `${address} ${lower}`, isExempt };
  }

  #failed(error: unknown): void {
    errorsTotal.inc();
    this.deps.logger.warn({ err: error }, 'the login guard can not use the store');
  }
}

/** @param atOnce other attempts under way: they are let go one after the other. */
function delayed(failures: number, settings: AbuseSettings, atOnce: number): Verdict {
  const { freeFailures, firstDelayMilliseconds, maxDelayMilliseconds } = settings;
  const steps = failures - freeFailures;
  if (steps <= 0) return { isAdmitted: true, delayMs: 0, result: 'free' };
  const delayMs = Math.min(maxDelayMilliseconds, firstDelayMilliseconds * 2 ** Math.min(steps - 1, 30));
  return { isAdmitted: true, delayMs: delayMs * (1 + atOnce), result: 'delayed' };
}
