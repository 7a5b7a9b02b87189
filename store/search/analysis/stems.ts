/** Stems of words in 17 languages, by the algorithms of Snowball. Each language's code is loaded when its first word comes. */
import { createRequire } from 'node:module';
import type { StemLanguage } from './contract.js';

type Stemmer = (word: string) => string;

const require = createRequire(import.meta.url);

interface StemmerModule {
  stemmer: Stemmer;
}

// The English one of the other package is an older algorithm, which differs in one word of twenty.
function englishStemmer(): Stemmer {
  const { newStemmer } = require('snowball-stemmers') as { newStemmer(language: string): { stem: Stemmer } };
  const english = newStemmer('english');
  return (word) => english.stem(word);
}

const load: Record<StemLanguage, () => StemmerModule> = {
  ar: () => require('@orama/stemmers/arabic'),
  da: () => require('@orama/stemmers/danish'),
  de: () => require('@orama/stemmers/german'),
  el: () => require('@orama/stemmers/greek'),
  en: () => ({ stemmer: englishStemmer() }),
  es: () => require('@orama/stemmers/spanish'),
  fi: () => require('@orama/stemmers/finnish'),
  fr: () => require('@orama/stemmers/french'),
  hu: () => require('@orama/stemmers/hungarian'),
  it: () => require('@orama/stemmers/italian'),
  nl: () => require('@orama/stemmers/dutch'),
  no: () => require('@orama/stemmers/norwegian'),
  pt: () => require('@orama/stemmers/portuguese'),
  ro: () => require('@orama/stemmers/romanian'),
  ru: () => require('@orama/stemmers/russian'),
  sv: () => require('@orama/stemmers/swedish'),
  tr: () => require('@orama/stemmers/turkish'),
};

const latin = /^[\p{Script=Latin}\p{M}]+$/u;
const scripts: Partial<Record<StemLanguage, RegExp>> = {
  ar: /^[\p{Script=Arabic}\p{M}]+$/u,
  el: /^[\p{Script=Greek}\p{M}]+$/u,
  ru: /^[\p{Script=Cyrillic}\p{M}]+$/u,
};

/** Longer ones are no words, and the algorithms take time by the square. */
const maxWordChars = 40;
/** Shorter ones have no endings. */
const minWordChars = 3;
/** Words per language that are remembered: twice, in a young and an old generation. */
const maxRememberedWords = 8_192;

class LanguageStems {
  readonly #stemmer: Stemmer;
  readonly #script: RegExp;
  #young = new Map<string, string | undefined>();
  #old = new Map<string, string | undefined>();

  constructor(readonly language: StemLanguage) {
    this.#stemmer = load[language]().stemmer;
    this.#script = scripts[language] ?? latin;
  }

  /** Undefined for what is no word of this language's script. */
  stem(word: string): string | undefined {
    if (word.length < minWordChars || word.length > maxWordChars) return undefined;
    let stem = this.#young.get(word);
    if (stem !== undefined || this.#young.has(word)) return stem;
    stem = this.#old.has(word) ? this.#old.get(word) : this.#make(word);
    if (this.#young.size >= maxRememberedWords) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(word, stem);
    return stem;
  }

  #make(word: string): string | undefined {
    if (!this.#script.test(word)) return undefined;
    // The capital of Turkish `i` keeps its dot as a mark in lower case.
    const stem = this.#stemmer(this.language === 'tr' ? word.replaceAll('i\u0307', 'i') : word);
    return stem === '' ? undefined : stem;
  }
}

const loaded = new Map<StemLanguage, LanguageStems>();

/**
 * The stems of one folded word in these languages, each once. Empty for what has none: numbers, words of other scripts, very long ones.
 */
export function stemsOf(word: string, languages: readonly StemLanguage[]): string[] {
  const stems: string[] = [];
  for (const language of languages) {
    let known = loaded.get(language);
    if (!known) {
      known = new LanguageStems(language);
      loaded.set(language, known);
    }
    const stem = known.stem(word);
    if (stem !== undefined && !stems.includes(stem)) stems.push(stem);
  }
  return stems;
}
