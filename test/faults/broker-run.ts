/**
 * Lives over a real broker, several at a time, each with a namespace, clients and owners of its own: the broker is killed and
 * started again, stands still, connections are cut and slow, and owners die as a kill ends them.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Worker } from 'node:worker_threads'
import type { Broker } from '../../scripts/brokers/broker.ts'
import { type BrokerKind, endOwner, startOwner } from '../../scripts/brokers/engines.ts'
import { openSharedEngine } from '../../src/broker/local-engine.ts'
import { openProxy, type Proxy as TcpProxy } from '../support/tcp-proxy.ts'
import { type Life, type LifeOptions, live } from './life.ts'

export interface BrokerRunOptions extends LifeOptions {
  readonly kind: BrokerKind
  /** How many lives at a time, with the seeds from `seed` on. */
  readonly lives: number
}

/** Owners of all lives end now and then; what happens to the broker and the network is up to the first of them. */
export async function runBroker({ kind, lives, seed, seconds, signal }: BrokerRunOptions): Promise<readonly Life[]> {
  const broker = await kind.start()
  const direct = new URL(broker.url)
  const proxy = await openProxy(direct)
  const url = new URL(broker.url)
  url.port = new URL(proxy.url).port
  // Kafka tells its clients where it is, which is past the proxy.
  if (kind.name === 'Kafka') url.searchParams.set('advertised', 'ignore')
  try {
    return await Promise.all(
      Array.from({ length: lives }, (_, i) =>
        liveOver(url.href, `life-${seed + i}-${Date.now()}`, i === 0 ? { broker, proxy } : null, {
          seed: seed + i,
          seconds,
          signal,
        }),
      ),
    )
  } finally {
    await proxy.close()
    await broker.stop()
  }
}

async function liveOver(
  url: string,
  namespace: string,
  hands: { readonly broker: Broker; readonly proxy: TcpProxy } | null,
  options: LifeOptions,
): Promise<Life> {
  let owner: Worker | null = await startOwner(url, namespace)
  let next: Promise<void> | null = null
  const replaceOwner = () => {
    // One at a time: the next needs the broker, which may be away.
    if (next !== null) return
    next = (async () => {
      await owner?.terminate()
      owner = await startOwner(url, namespace).catch(() => null)
      next = null
    })()
  }
  try {
    return await live(
      {
        connect: () =>
          openSharedEngine({
            url,
            namespace,
            durability: undefined,
            copies: undefined,
            connectMs: 60_000,
            stateDir: null,
          }),
        pauseMs: [1_000, 6_000],
        async cause(random) {
          const dice = random()
          if (hands === null || dice < 0.3) return replaceOwner()
          await causeToBroker(hands.broker, hands.proxy, random)
        },
        async mend() {
          hands?.proxy.delay(0)
          hands?.proxy.next('none')
          await next
        },
      },
      options,
    )
  } finally {
    await next
    if (owner !== null) await endOwner(owner)
  }
}

async function causeToBroker(broker: Broker, proxy: TcpProxy, random: () => number): Promise<void> {
  const dice = random()
  if (dice < 0.35) proxy.cutAll()
  else if (dice < 0.5) proxy.delay(random() * 50)
  else if (dice < 0.65) proxy.next(random() < 0.5 ? 'cut-request' : 'cut-answer')
  else if (!broker.isOurs) proxy.cutAll()
  else if (dice < 0.8) {
    broker.pause()
    await delay(500 + random() * 2_500)
    broker.resume()
  } else {
    await broker.kill()
    await delay(random() * 1_000)
    await broker.restart()
  }
}
