/** What administrators may set of a message's outcome: schedules, reports, lists. Plain fields only, so that a schema can be laid over them. */
import type { StageEvaluator, StageFacts } from '../expressions/index.js';
import { defaultReportLanguages, type ReportTexts, reportTexts } from './report-texts.js';

/** When a destination that could not be served is tried again, reported and given up. */
export interface RetrySchedule {
  /** Waits between attempts; the last one repeats. */
  retryDelaysSeconds: readonly number[];
  /** Ages at which the sender is told of the delay, ascending. */
  notifyAfterSeconds: readonly number[];
  /** Age at which it goes back. Absent: as it was settled when the message was accepted. */
  expireAfterSeconds?: number;
  /** How long messages are kept when they are accepted. What was given longer was held back first (RFC 4865), and its age counts from there. */
  acceptedForSeconds?: number;
}

/** What a list is beside its members. */
export interface ListSettings {
  /** Gets what comes back from members; they are shown it as List-Owner. Default: the postmaster, not shown. */
  owner?: string | undefined;
  /** Who may write to it, by reverse-path (RFC 3461 5.2.7.3 leaves that to the list). */
  posting: 'anyone' | 'members' | 'owners';
  /** Besides `owner`, for `posting`. */
  moderators?: readonly string[];
  /** Shown before the List-Id. */
  name?: string | undefined;
  /** RFC 2369: URIs. */
  help?: string | undefined;
  archive?: string | undefined;
  subscribe?: string | undefined;
  unsubscribe?:
    | {
        /** Address; default: the owner. */
        mailto?: string | undefined;
        /** https. */
        url?: string | undefined;
        /** RFC 8058: a POST to `url` unsubscribes at once. */
        isOneClick?: boolean;
      }
    | undefined;
  /** Each outside member's copy has a reverse-path that names the member, so that a report tells who is meant. */
  isVerp: boolean;
}

/** A list of which nothing is set. */
export const defaultListSettings: ListSettings = { posting: 'anyone', isVerp: false };

export interface OutcomeSettings {
  /** By name, besides the default one. */
  schedules: ReadonlyMap<string, RetrySchedule>;
  /** Names a schedule; '' or an unknown name: the default one. Answers at once unless it must ask somebody. */
  scheduleFor?: (facts: Partial<StageFacts>, evaluator: StageEvaluator) => string | Promise<string>;
  /** Languages of reports, the first one also of their subject. */
  reportLanguages: readonly string[];
  /** Chooses them by message; no language: `reportLanguages`. */
  reportLanguagesFor?: (facts: Partial<StageFacts>, evaluator: StageEvaluator) => readonly string[] | Promise<readonly string[]>;
  /** By language. */
  reportTexts: Readonly<Record<string, ReportTexts>>;
  /** Failure and delay reports about mail from outside to one address within an hour, on each node; 0: without limit. What is more is counted and left unsaid. */
  maxReportsPerSenderPerHour: number;
  /** By the list's primary address. */
  lists: ReadonlyMap<string, ListSettings>;
  /** Members that share a message, and a transaction. */
  membersPerBatch: number;
}

export const defaultOutcomeSettings: OutcomeSettings = {
  schedules: new Map(),
  reportLanguages: defaultReportLanguages,
  reportTexts,
  maxReportsPerSenderPerHour: 200,
  lists: new Map(),
  membersPerBatch: 1_000,
};
