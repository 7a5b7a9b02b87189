export { RequestBody } from './body.js';
export { HttpError } from './errors.js';
export { loadUws } from './loader.js';
export {
  type HttpBody,
  type HttpHandler,
  type HttpRequest,
  type HttpResponse,
  jsonResponse,
  problemResponse,
  textResponse,
} from './messages.js';
export { type RouteOptions, type RouteRegistry, Router } from './router.js';
export { HttpServer, type HttpServerOptions, type HttpTrustedProxies } from './server.js';
export {
  isNamed,
  namesInCertificate,
  type TlsCertificate,
  type VerifiedCertificate,
  verifyCertificate,
} from './tls-certificate.js';
