import Foundation
import TestSupport
import Testing

/// A dispatcher reads secrets. Whoever may make an operator in schema public (everybody, before PostgreSQL 15 and in databases
/// from then) must not have it run in the dispatcher's session.
@Suite struct ShadowingTests {
  @Test func objectsInPublicAreNotRunByADispatcher() async throws {
    let database = try await TestDatabase.make()
    let listener = try await Listener()
    _ = try await database.addEndpoint(listener.url())
    try await database.execute(
      """
      CREATE TABLE traces (what text);
      GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC;
      GRANT INSERT ON traces TO PUBLIC;
      SET SESSION AUTHORIZATION outbox_operator;
      -- Closer to what statements ask for than the ones in pg_catalog, and so preferred where public is looked into.
      CREATE FUNCTION public.times(a numeric, b int) RETURNS numeric LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.traces SELECT secret FROM outbox.endpoint_secret; RETURN a OPERATOR(pg_catalog.*) b::numeric; END $$;
      CREATE OPERATOR public.* (LEFTARG = numeric, RIGHTARG = int, FUNCTION = public.times);
      CREATE FUNCTION public.join_text(a text, b text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.traces SELECT secret FROM outbox.endpoint_secret; RETURN pg_catalog.textcat(a, b); END $$;
      CREATE OPERATOR public.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = public.join_text);
      RESET SESSION AUTHORIZATION;
      """
    )
    try await withDispatcher(database) { _ in
      try await database.publish(5)
      try await eventually("all have arrived") { listener.accepted().count >= 5 }
    }
    #expect(try await database.rows("SELECT what FROM traces") == [])
  }
}
