/** The toolkit of tests that compare texts: tags for signatures, and what a test makes of them. */
export { type AddressPart, type AddressPartOf, addressPartOf } from './address-parts.js';
export { asciiUpperCase, comparators } from './comparators.js';
export { type Comparison, type ComparisonOptions, comparisonOf } from './comparison.js';
export { maxRegexChars } from './regex.js';
export { addressPartTags, comparisonTags, indexTags, mimeOptionTags, mimeTags } from './tags.js';
export { maxCaptures } from './wildcard.js';
