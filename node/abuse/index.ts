export { createLoginGuard, type LoginGuardDependencies } from './login-guard.js';
