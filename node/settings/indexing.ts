/** What the indexing service takes from the settings, at every step anew. */
import type { IndexingSettings } from '../services/indexing/index.js';
import type { ClusterSettings } from './sections.js';

export function indexingSettings({ search }: Pick<ClusterSettings, 'search'>): IndexingSettings {
  return {
    isEnabled: search.enabled,
    delayMs: search.delaySeconds * 1000,
    share: search.cpuSharePercent / 100,
    patienceMs: search.patienceSeconds * 1000,
    bearableTail: search.patienceMessages,
    batchMessages: search.batchMessages,
    batchChars: search.batchTextCharacters,
    maxBodyChars: search.maxBodyCharacters,
    languages: search.languages,
  };
}
