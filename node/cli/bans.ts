/** The command line's part of the operations on bans: who asks. */
import { type OperationFace, signed } from './face.js';

export const banFaces: Readonly<Record<string, OperationFace>> = { 'ban add': { prepare: signed } };
