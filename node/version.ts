/** This node's version; the same as package.json's, which a test holds it to. */
export const version = '0.1.0';
