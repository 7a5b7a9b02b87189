/** The public face of the node's use of cluster-wide settings. */
export { liveAcceptStages } from './accept.js';
export { announcingSettings } from './announcing.js';
export { clusterKeyVariable, loadClusterKeys } from './cluster-key.js';
export { indexingSettings } from './indexing.js';
export { live } from './live.js';
export { applyFirstSettings, type FirstSettings, openNodeSettings, openSealedSettings, readFirstSettings } from './open.js';
export { type ClusterSettings, type NodeSettings, sectionsReadAtStart, settingsRegistry } from './sections.js';
export { imapLimits, pop3Limits, smtpLimits } from './sessions.js';
