/** Tells the language of a text. The detector takes tens of megabytes, so it is loaded by the first call, which only the indexer makes. */
import { type StemLanguage, stemLanguages } from './contract.js';

type Detector = (text: string) => { language: string; isReliable(): boolean };

/** Characters that are looked at: the detector needs no more, and takes time by the length. */
const maxLookedAtChars = 1_000;
/** Less says little about a language. */
const minLetters = 16;

let detector: Promise<Detector> | undefined;

async function loadDetector(): Promise<Detector> {
  const { eld } = await import('eld/extrasmall');
  return (text) => eld.detect(text);
}

const known: ReadonlySet<string> = new Set(stemLanguages);

/** The language of a text if it can be told and has a stemmer here. */
export async function detectLanguage(text: string): Promise<StemLanguage | undefined> {
  const sample = text.slice(0, maxLookedAtChars);
  if ((sample.match(/\p{L}/gu)?.length ?? 0) < minLetters) return undefined;
  detector ??= loadDetector();
  const found = (await detector)(sample);
  if (!found.isReliable()) return undefined;
  const language = found.language === 'nb' || found.language === 'nn' ? 'no' : found.language;
  return known.has(language) ? (language as StemLanguage) : undefined;
}
