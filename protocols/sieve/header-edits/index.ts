/** RFC 5293: scripts that edit the header. Tests that follow see what was edited; the message itself stays as it is. */
import type { Extension } from '../contract.js';
import { addheader } from './addheader.js';
import { deleteheader } from './deleteheader.js';

export const editheader: Extension = { name: 'editheader', commands: [addheader, deleteheader] };
