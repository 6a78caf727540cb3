import Foundation

/// What a role may do with each object of the schemas, found out by trying: every statement on every table, view, sequence and
/// function that the catalog has, column by column. Nothing that succeeds is left behind.
struct Privileges {
  private let client: Client

  /// - Parameter role: is created if it is not there.
  init(of role: String, in database: Database) async throws {
    let owner = database.client()
    try await owner.execute(
      """
      CREATE OR REPLACE FUNCTION public.attempt(statements text[]) RETURNS text[] LANGUAGE plpgsql AS $$
      DECLARE answers text[] := '{}'; statement text;
      BEGIN
        FOREACH statement IN ARRAY statements LOOP
          BEGIN
            EXECUTE statement;
            RAISE EXCEPTION USING ERRCODE = 'DONE0';  -- takes back what it did
          EXCEPTION WHEN OTHERS THEN
            answers := answers || SQLSTATE;
          END;
        END LOOP;
        RETURN answers;
      END $$
      """
    )
    if try await owner.value("SELECT to_regrole('\(role)')") == nil { try await owner.execute("CREATE ROLE \(role)") }
    client = database.client()
    try await client.becomes(role)
  }

  /// Every object with what is allowed, in one word each: `select(id,url) insert delete`; a dash where nothing is.
  func all() async throws -> [String: String] {
    var found: [String: String] = [:]
    for (name, kind, columns) in try await relations() {
      let words = kind == "S" ? try await sequence(name) : try await relation(name, columns)
      found[Self.stableName(name)] = words.isEmpty ? "-" : words.joined(separator: " ")
    }
    for (name, call) in try await functions() {
      found[name] = try await attempt(["SELECT \(call) WHERE false"]) == [true] ? "execute" : "-"
    }
    return found
  }

  /// Days and endpoints have numbers, which change.
  private static func stableName(_ name: String) -> String {
    name.replacing(/_\d{8}$/, with: "_<day>").replacing(/rate_\d+$/, with: "rate_<endpoint>")
  }

  private func relation(_ name: String, _ columns: [String]) async throws -> [String] {
    var words: [String] = []
    for (verb, statement) in [
      ("select", { "SELECT \($0) FROM \(name) WHERE false" }),
      ("insert", { "INSERT INTO \(name) (\($0)) OVERRIDING SYSTEM VALUE SELECT NULL WHERE false" }),
      // A constant rather than the column: reading that would take another right. DEFAULT suits every type, and identities.
      ("update", { "UPDATE \(name) SET \($0) = DEFAULT WHERE false" }),
    ] as [(String, (String) -> String)] {
      let answers = try await attempt(columns.map(statement))
      let allowed = zip(columns, answers).filter(\.1).map(\.0)
      if allowed.count == columns.count {
        words.append(verb)
      } else if !allowed.isEmpty {
        words.append("\(verb)(\(allowed.joined(separator: ",")))")
      }
    }
    let answers = try await attempt(["DELETE FROM \(name) WHERE false", "TRUNCATE \(name)"])
    words += zip(["delete", "truncate"], answers).filter(\.1).map(\.0)
    return words
  }

  private func sequence(_ name: String) async throws -> [String] {
    let answers = try await attempt([
      "SELECT last_value FROM \(name)", "SELECT nextval('\(name)')", "SELECT setval('\(name)', 1)",
    ])
    return zip(["select", "nextval", "setval"], answers).filter(\.1).map(\.0)
  }

  /// Whether each is allowed.
  private func attempt(_ statements: [String]) async throws -> [Bool] {
    let answers = try await client.column("SELECT unnest(public.attempt($1))", [.textArray(statements)])
    return try zip(statements, answers).map { statement, answer in
      switch answer {
      case "DONE0": return true
      // No right; a view that cannot be written to, or a column of one, or that cannot be truncated.
      case "42501", "55000", "0A000", "428C9", "42809": return false
      default: throw Unexpected("\(statement): \(answer)")
      }
    }
  }

  private func relations() async throws -> [(String, String, [String])] {
    let rows = try await client.rows(
      """
      SELECT n.nspname || '.' || c.relname, c.relkind, string_agg(quote_ident(a.attname), ',' ORDER BY a.attnum)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
      WHERE n.nspname IN ('outbox', 'outbox_tenant') AND c.relkind NOT IN ('i', 'I') AND a.attnum > 0 AND NOT a.attisdropped
      GROUP BY 1, 2 ORDER BY 1
      """
    )
    return rows.map { ($0[0]!, $0[1]!, $0[2]!.split(separator: ",").map(String.init)) }
  }

  private func functions() async throws -> [(String, String)] {
    let rows = try await client.rows(
      """
      SELECT n.nspname || '.' || p.proname || '()', n.nspname || '.' || p.proname || '(' || coalesce((
        SELECT string_agg('NULL::' || format_type(t.id, NULL), ', ' ORDER BY t.place)
        FROM unnest(p.proargtypes) WITH ORDINALITY t(id, place)), '') || ')'
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname IN ('outbox', 'outbox_tenant') ORDER BY 1
      """
    )
    return rows.map { ($0[0]!, $0[1]!) }
  }
}
