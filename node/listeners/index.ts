export { CertificateStore, type CertificateStoreOptions } from './certificates.js';
export type { ListenerConnection, TlsInfo } from './connection.js';
export { TcpListener, type TcpListenerOptions } from './listener.js';
export { type TrustedProxies, trustedProxies } from './proxy-reception.js';
export { loadOrMakeSelfSigned, makeSelfSigned, type SelfSignedOptions } from './self-signed.js';
