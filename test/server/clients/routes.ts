import type { FastifyInstance } from 'fastify';

export interface Route {
  /** With a name of no model where any path may follow. */
  readonly path: string;
  readonly methods: readonly string[];
}

/** Every route of a server, read from the tree that the router prints: a line's path begins with those above it. */
export function routesOf(app: FastifyInstance): Route[] {
  const above: string[] = [];
  const routes: Route[] = [];
  for (const line of app.printRoutes().split('\n')) {
    const [, indent, part, methods] = /^([│ ]*)[├└]── (\S+)(?: \(([^)]+)\))?$/.exec(line) ?? [];
    if (indent === undefined) continue;
    const depth = indent.length / 4;
    above.splice(depth, above.length, part!);
    if (methods === undefined) continue;
    routes.push({ path: above.join('').replace('*', 'x'), methods: methods.split(', ') });
  }
  return routes;
}
