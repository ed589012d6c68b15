/**
 * A life on one side of a bad network, with a server on the other: delays, cuts before, within and after requests,
 * connections that swallow what is sent.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { open } from '../../src/index.ts'
import { openRemoteEngine } from '../../src/remote/remote-engine.ts'
import { createServer } from '../../src/server/server.ts'
import { type Fault, openProxy } from '../support/tcp-proxy.ts'
import { type Life, type LifeOptions, live } from './life.ts'

const FAULTS: readonly Fault[] = ['cut-request', 'cut-answer', 'cut-within-answer', 'swallow', 'swallow-answer']

export async function runNetwork(options: LifeOptions): Promise<Life> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-network-'))
  const served = await open(join(folder, 'data'), { durability: 'os' })
  const server = createServer(served, { port: 0 })
  const proxy = await openProxy(new URL(await server.listen()))
  try {
    return await live(
      {
        connect: () => openRemoteEngine(new URL(proxy.url)),
        pauseMs: [20, 220],
        cause(random) {
          const dice = random()
          if (dice < 0.1) proxy.cutAll()
          else if (dice < 0.3) proxy.delay(random() * 80)
          else proxy.next(FAULTS[Math.floor(random() * FAULTS.length)] as Fault)
        },
        mend() {
          proxy.next('none')
          proxy.delay(0)
          proxy.cutAll()
        },
      },
      options,
    )
  } finally {
    await proxy.close()
    await server.close()
    await served.close()
    await rm(folder, { recursive: true, force: true })
  }
}
