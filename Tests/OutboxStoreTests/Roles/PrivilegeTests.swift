import Foundation
import Testing

/// Every role against every object, statement by statement. What is allowed is written down in ``PrivilegeTable``; an object
/// that is not in it fails the test, so nobody adds one without having thought of who may do what with it.
@Suite struct PrivilegeTests {
  private static let roles = [
    "publisher": "outbox_publisher", "dispatcher": "outbox_dispatcher", "operator": "outbox_operator",
    "tenant": "outbox_tenant_operator",
  ]

  @Test func everyRoleMayDoWhatItsTableSaysAndNothingElse() async throws {
    try await withDatabase { database in
      // So that there is a sequence of a rate limit.
      try await database.client().addEndpoint("rate_limit => 1")
      let expected = PrivilegeTable.parsed
      var found: [String: [String: String]] = [:]
      for (short, role) in Self.roles {
        for (object, words) in try await Privileges(of: role, in: database).all() {
          found[object, default: [:]][short] = words == "-" ? nil : words
        }
      }
      #expect(Set(found.keys) == Set(expected.keys))
      for object in found.keys.sorted() {
        #expect(found[object] == expected[object], "\(object)")
      }
    }
  }

  @Test func outsiderMayDoNothing() async throws {
    try await withDatabase { database in
      try await database.client().addEndpoint("rate_limit => 1")
      let stranger = "outsider_\(database.name)"
      let found = try await Privileges(of: stranger, in: database).all()
      #expect(Set(found.keys) == Set(PrivilegeTable.parsed.keys))
      for (object, words) in found { #expect(words == "-", "\(object)") }
      try await database.client().execute("DROP ROLE \(stranger)")
    }
  }

  /// What statements on rows do not show.
  @Test func nobodyMayCreateInTheSchemasOrReferToTheirTables() async throws {
    try await withDatabase { database in
      let owner = database.client()
      let granted = """
        SELECT DISTINCT a.privilege_type FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a
        WHERE n.nspname IN ('outbox', 'outbox_tenant') AND a.grantee <> c.relowner ORDER BY 1
        """
      let verbs = try await owner.column(granted)
      #expect(verbs == ["DELETE", "INSERT", "SELECT", "UPDATE", "USAGE"])
      let regrantable = """
        SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a
        WHERE n.nspname IN ('outbox', 'outbox_tenant') AND a.is_grantable AND a.grantee <> c.relowner
        """
      #expect(try await owner.column(regrantable) == [])
      let schemas = """
        SELECT n.nspname || ' ' || a.grantee::regrole || ' ' || a.privilege_type FROM pg_namespace n, aclexplode(n.nspacl) a
        WHERE n.nspname IN ('outbox', 'outbox_tenant') AND a.grantee <> n.nspowner ORDER BY 1
        """
      #expect(
        try await owner.column(schemas) == [
          "outbox outbox_dispatcher USAGE", "outbox outbox_operator USAGE", "outbox outbox_publisher USAGE",
          "outbox_tenant outbox_tenant_operator USAGE",
        ]
      )
    }
  }
}
