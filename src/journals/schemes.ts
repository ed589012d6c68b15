/** Schemes of URLs that mean a broker, without the colon. */
export const BROKER_SCHEMES: readonly string[] = ['redis', 'rediss', 'amqp', 'amqps', 'kafka', 'kafkas']
