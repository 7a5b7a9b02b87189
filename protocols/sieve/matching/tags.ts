/** The tagged arguments that tests share: how texts are compared, which part of an address, which of several fields, which parts of the message. */
import type { TagSpec } from '../contract.js';

type Tags = Readonly<Record<string, TagSpec>>;

/** RFC 5228 2.7, RFC 5231, draft-ietf-sieve-regex, RFC 6134. For every command that calls `comparisonOf`. */
export const comparisonTags: Tags = {
  comparator: { value: 'string', group: 'comparator' },
  is: { group: 'match-type' },
  contains: { group: 'match-type' },
  matches: { group: 'match-type' },
  regex: { group: 'match-type', requires: 'regex' },
  value: { group: 'match-type', requires: 'relational', value: 'string' },
  count: { group: 'match-type', requires: 'relational', value: 'string' },
  list: { group: 'match-type', requires: 'extlists' },
};

/** RFC 5228 2.7.4, RFC 5233. */
export const addressPartTags: Tags = {
  all: { group: 'address-part' },
  localpart: { group: 'address-part' },
  domain: { group: 'address-part' },
  user: { group: 'address-part', requires: 'subaddress' },
  detail: { group: 'address-part', requires: 'subaddress' },
};

/** RFC 5260 6. */
export const indexTags: Tags = {
  index: { requires: 'index', value: 'number' },
  last: { requires: 'index' },
};

/** RFC 5703 4: whose header is looked at. */
export const mimeTags: Tags = {
  mime: { requires: 'mime' },
  anychild: { requires: 'mime' },
};

/** RFC 5703 4.1: what of a structured field is looked at. */
export const mimeOptionTags: Tags = {
  type: { group: 'mime-option', requires: 'mime' },
  subtype: { group: 'mime-option', requires: 'mime' },
  contenttype: { group: 'mime-option', requires: 'mime' },
  param: { group: 'mime-option', requires: 'mime', value: 'strings' },
};
