/**
 * SORT programs and THREAD algorithms (RFC 5256 section 5; SORT=DISPLAY: RFC 5957; REFS: draft-ietf-morg-inthread-01 section 4), as far as they stand in front
 * of the search criteria.
 */
import type { Cursor } from './cursor.js';

const sortKeys = ['ARRIVAL', 'CC', 'DATE', 'DISPLAYFROM', 'DISPLAYTO', 'FROM', 'SIZE', 'SUBJECT', 'TO'] as const;

export type SortKey = (typeof sortKeys)[number];

export interface SortCriterion {
  key: SortKey;
  /** Descending; equal ones stay in the mailbox's order all the same (RFC 5256). */
  isReverse: boolean;
}

/** What comes first decides first; a key that occurs a second time can decide nothing any more and is left out. */
export function readSortCriteria(cursor: Cursor): SortCriterion[] {
  const criteria: SortCriterion[] = [];
  cursor.list(() => {
    let word = cursor.word();
    const isReverse = word === 'REVERSE';
    if (isReverse) {
      cursor.space();
      word = cursor.word();
    }
    const key = sortKeys.find((one) => one === word);
    if (!key) cursor.fail(`Unknown sort key ${word.slice(0, 40)}`);
    if (!criteria.some((criterion) => criterion.key === key)) criteria.push({ key, isReverse });
  });
  return criteria;
}

const threadAlgorithms = ['ORDEREDSUBJECT', 'REFERENCES', 'REFS'] as const;

export type ThreadAlgorithm = (typeof threadAlgorithms)[number];

export function readThreadAlgorithm(cursor: Cursor): ThreadAlgorithm {
  const word = cursor.word();
  const algorithm = threadAlgorithms.find((one) => one === word);
  if (!algorithm) cursor.fail(`Unknown thread algorithm ${word.slice(0, 40)}`);
  return algorithm;
}
