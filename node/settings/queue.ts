/** Section `queue` as the mail flow and the queue's runner take it. */
import { tryParseAddress } from '../../store/directory/index.js';
import type { OutcomeSettings, ReportTexts } from '../mailflow/index.js';
import { defaultOutcomeSettings } from '../mailflow/outcome-settings.js';
import type { VirtualQueue } from '../services/index.js';
import { queue as schema } from './schemas/queue.js';
import type { ClusterSettings } from './sections.js';

type QueueSection = ClusterSettings['queue'];

/** Schedules, reports and lists. */
export function outcomeSettings(section: QueueSection): OutcomeSettings {
  const { schedule, reportLanguagesFor } = section;
  const hasSchedules = Object.keys(section.schedules).length > 0;
  return {
    schedules: new Map(Object.entries(section.schedules)),
    ...(hasSchedules && {
      scheduleFor: (facts, evaluator) => evaluator.evaluateStage('queue.schedule', schema.shape.schedule, schedule, facts),
    }),
    reportLanguages: section.reportLanguages,
    ...(reportLanguagesFor !== '[]' && {
      reportLanguagesFor: (facts, evaluator) =>
        evaluator.evaluateStage('queue.reportLanguagesFor', schema.shape.reportLanguagesFor, reportLanguagesFor, facts),
    }),
    reportTexts: withOverrides(section.reportTexts),
    maxReportsPerSenderPerHour: section.maxReportsPerSenderPerHour,
    // As the directory has them, whatever script their domain was written in.
    lists: new Map(
      Object.entries(section.lists).map(([address, list]) => [tryParseAddress(address)?.address ?? address.toLowerCase(), list]),
    ),
    membersPerBatch: section.membersPerBatch,
  };
}

function withOverrides(overrides: Record<string, ReportTexts>): Record<string, ReportTexts> {
  const texts: Record<string, ReportTexts> = { ...defaultOutcomeSettings.reportTexts };
  for (const [language, own] of Object.entries(overrides)) texts[language] = { ...texts[language], ...own };
  return texts;
}

/** Virtual queues for the runner's limits. */
export function virtualQueues(section: Pick<QueueSection, 'virtualQueues'>): VirtualQueue[] {
  return Object.entries(section.virtualQueues).map(([name, limits]) => ({ name, ...limits }));
}
