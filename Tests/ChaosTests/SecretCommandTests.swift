import Foundation
import Receiver
import TestSupport
import Testing

/// Keys, secrets and credentials on the command line.
@Suite struct SecretCommandTests {
  private let database: TestDatabase
  private let folder = FileManager.default.temporaryDirectory.appendingPathComponent("martlet-\(UUID().uuidString)")

  init() async throws {
    database = try await TestDatabase.make()
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  }

  private func martlet(_ arguments: String..., environment: [String: String] = [:]) async throws
    -> MartletProcess.Result
  {
    try await MartletProcess.run(
      arguments,
      environment: environment.merging(["DATABASE_URL": database.connectionString]) { $1 }
    )
  }

  private func file(_ name: String, _ text: String, mode: Int = 0o600) throws -> String {
    let path = folder.appendingPathComponent(name).path
    try text.write(toFile: path, atomically: true, encoding: .utf8)
    try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
    return path
  }

  private func newKey() async throws -> String {
    let printed = try await martlet("secret", "new-key")
    #expect(printed.status == 0)
    return printed.output.trimmingCharacters(in: .whitespacesAndNewlines)
  }

  /// Neither a table nor the server's log (were it on) has it in plain at any time.
  @Test func secretsAreSealedBeforeTheyAreStored() async throws {
    // Whatever is stored passes here, though it be replaced in the same transaction.
    try await database.execute(
      """
      CREATE TABLE seen (value text); GRANT INSERT ON seen TO PUBLIC;
      CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.seen VALUES (to_jsonb(NEW)::text); RETURN NEW; END $$;
      CREATE TRIGGER note BEFORE INSERT OR UPDATE ON outbox.endpoint_secret FOR EACH ROW EXECUTE FUNCTION note();
      CREATE TRIGGER note BEFORE INSERT OR UPDATE ON outbox.endpoint_credential FOR EACH ROW EXECUTE FUNCTION note();
      """
    )
    let key = ["MARTLET_SECRET_KEY": try await newKey()]
    let added = try await martlet("endpoint", "add", "https://example.com/", environment: key)
    let secret = try #require(added.output.firstMatch(of: /whsec_\S+/)).0
    let rotated = try await martlet("endpoint", "rotate-secret", "1", "--ed25519", environment: key)
    #expect(rotated.output.contains("public key whpk_") && !rotated.output.contains("whsk_"))
    let password = try file("password", "opensesame\n")
    let set = try await martlet(
      "endpoint",
      "set-auth",
      "1",
      "--basic",
      "shop",
      "--password-file",
      password,
      environment: key
    )
    #expect(set.output.contains("basic") && set.output.contains("encrypted"), "\(set.errors)")
    let seen = try await database.rows("SELECT value FROM seen").map { $0[0]! }
    #expect(seen.count >= 3)
    for row in seen {
      #expect(!row.contains(secret) && !row.contains("whsec_") && !row.contains("whsk_") && !row.contains("opensesame"))
    }
    #expect(try await database.rows("SELECT count(*) FROM outbox.sealing WHERE sealed_by IS NULL") == [["0"]])
  }

  @Test func ed25519KeysArePublished() async throws {
    let added = try await martlet("endpoint", "add", "https://example.com/", "--ed25519", "--json")
    let object = try #require(try JSONSerialization.jsonObject(with: Data(added.output.utf8)) as? [String: Any])
    let publicKey = try #require(object["public_key"] as? String)
    #expect(publicKey.hasPrefix("whpk_") && object["secret"] == nil)
    #expect(try await database.rows("SELECT kind, public_key FROM outbox.endpoint_key") == [["ed25519", publicKey]])
    #expect(try await martlet("endpoint", "show", "1").output.contains("signing keys: ed25519 \(publicKey)"))
    // The same kind as before, unless told otherwise.
    #expect(try await martlet("endpoint", "rotate-secret", "1").output.contains("public key whpk_"))
    #expect(try await martlet("endpoint", "rotate-secret", "1", "--hmac").output.contains("secret whsec_"))
    #expect(try await martlet("endpoint", "rotate-secret", "1").output.contains("secret whsec_"))
    let shown = try await martlet("endpoint", "show", "1")
    #expect(shown.output.contains("ed25519 \(publicKey) until 20"), "\(shown.output)")
    #expect(!shown.output.contains("whsec_") && !shown.output.contains("whsk_"))
    #expect(try await martlet("endpoint", "rotate-secret", "1", "--hmac", "--ed25519").status == 64)
    #expect(try await martlet("endpoint", "rotate-secret", "9", "--ed25519").errors.contains("no endpoint 9"))
    #expect(
      try await martlet("endpoint", "add", "https://example.com/", "--ed25519", "--secret-file", "-").status == 64
    )
  }

  /// A command line is shown to everybody by `ps`.
  @Test func signingSecretsComeFromFilesAndNeverFromTheCommandLine() async throws {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    let stored = try file("secret", secret + "\n")
    let added = try await martlet("endpoint", "add", "https://example.com/", "--secret-file", stored)
    #expect(added.status == 0 && added.output.contains(secret), "\(added.errors)")
    #expect(try await database.rows("SELECT secret FROM outbox.endpoint_secret") == [[secret]])
    for (arguments, word) in [
      (["--secret-file", try file("bad", "whsec_!")], "not usable"),
      (["--secret-file", try file("two", "\(secret)\n\(secret)\n")], "one line"),
      (["--secret-file", "-"], "missing"), (["--secret-file", "/nowhere"], "cannot be read"),
      (["--secret", secret], "--secret"),
    ] {
      let result = try await MartletProcess.run(
        ["endpoint", "add", "https://example.com/"] + arguments,
        environment: ["DATABASE_URL": database.connectionString]
      )
      #expect(result.status != 0 && result.errors.contains(word), "\(arguments): \(result.errors)")
    }
    #expect(try await database.int("SELECT count(*) FROM outbox.endpoint") == 1)
    let receiver = try await martlet("receive", "--secret-file", try file("none", "whsec_!\n"))
    #expect(receiver.status == 1 && receiver.errors.contains("not usable"), "\(receiver.errors)")
  }

  /// Whoever may make an operator in schema public must not have it run by an operator of Martlet's.
  @Test func objectsInPublicAreNotRunByTheCommandLine() async throws {
    try await database.execute(
      """
      CREATE TABLE traces (what text);
      GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC;
      GRANT INSERT ON traces TO PUBLIC;
      ALTER DATABASE \(try #require(try await database.rows("SELECT current_database()").first?[0])) SET search_path = public, pg_catalog;
      -- Each of them closer to what statements of the command line ask for than the one in pg_catalog.
      CREATE FUNCTION public.times(a int, b interval) RETURNS interval LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.traces VALUES ('times'); RETURN b; END $$;
      CREATE OPERATOR public.* (LEFTARG = int, RIGHTARG = interval, FUNCTION = public.times);
      CREATE FUNCTION public.concat_ws(text, text, text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.traces VALUES ('concat_ws'); RETURN ''; END $$;
      CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.traces VALUES ('now'); RETURN pg_catalog.now(); END $$;
      CREATE FUNCTION public.array_to_string(a text[], b text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO public.traces VALUES ('array_to_string'); RETURN ''; END $$;
      """
    )
    for arguments in [
      ["endpoint", "add", "https://example.com/"], ["endpoint", "rotate-secret", "1"], ["endpoint", "list"],
      ["endpoint", "show", "1"], ["event", "publish", "t", "1"], ["dead", "list"], ["secret", "status"], ["reconcile"],
    ] {
      let result = try await MartletProcess.run(
        arguments,
        environment: ["DATABASE_URL": database.connectionString]
      )
      #expect(result.status == 0 || arguments == ["reconcile"], "\(arguments): \(result.errors)")
    }
    #expect(try await database.rows("SELECT what FROM traces") == [])
    // They would have been run, had the command line looked there.
    try await database.execute("SET search_path = public, pg_catalog; SELECT 1 * interval '1 hour'")
    #expect(try await database.int("SELECT count(*) FROM public.traces") == 1)
  }

  @Test func theKeyIsRotatedByHand() async throws {
    let (old, new) = (try await newKey(), try await newKey())
    #expect(old != new)
    _ = try await database.addEndpoint("https://example.com/")
    _ = try await database.addEndpoint("https://example.com/")
    #expect(try await martlet("secret", "status").output.contains("in plain"))
    let none = try await martlet("secret", "seal")
    #expect(none.status == 1 && none.errors.contains("MARTLET_SECRET_KEY"))
    let oldFile = try file("old", "# since May\n\(old)\n")
    #expect(
      try await martlet("secret", "seal", "--secret-key-file", oldFile).output.contains("encrypted 2, encrypted anew 0")
    )
    #expect(try await martlet("secret", "status", "--secret-key-file", oldFile).output.contains("encrypted"))
    #expect(try await martlet("secret", "status").output.contains("under a key not given here"))
    let both = try file("both", "\(new)\n\(old)\n")
    #expect(try await martlet("secret", "status", "--secret-key-file", both).output.contains("under an older key"))
    let wrong = try await martlet("secret", "seal", environment: ["MARTLET_SECRET_KEY": new])
    #expect(
      wrong.status == 1 && wrong.errors.contains("2 values cannot be read") && wrong.errors.contains("endpoint 1")
    )
    #expect(
      try await martlet("secret", "seal", "--secret-key-file", both).output.contains("encrypted 0, encrypted anew 2")
    )
    let status = try await martlet("secret", "status", "--json", environment: ["MARTLET_SECRET_KEY": new])
    let rows = try #require(try JSONSerialization.jsonObject(with: Data(status.output.utf8)) as? [[String: Any]])
    #expect(rows.count == 1 && rows[0]["state"] as? String == "encrypted" && rows[0]["values"] as? Int == 2)
    for output in [wrong.errors, status.output] { #expect(!output.contains(old) && !output.contains(new)) }
  }

  @Test func badKeysAreToldAndNotRepeated() async throws {
    let readable = try file("readable", try await newKey(), mode: 0o644)
    let warned = try await martlet("secret", "status", "--secret-key-file", readable)
    #expect(warned.status == 0 && warned.errors.contains("chmod 600"))
    let commands = [
      ["secret", "status"], ["dispatch"], ["endpoint", "add", "https://example.com/"],
      ["endpoint", "rotate-secret", "1"],
    ]
    for command in commands {
      for (value, words) in [("", "is empty"), ("geheim!", "not base64"), ("Z2VoZWlt", "6 bytes")] {
        let result = try await MartletProcess.run(
          command,
          environment: ["DATABASE_URL": database.connectionString, "MARTLET_SECRET_KEY": value]
        )
        #expect(result.status == 1 && result.errors.contains(words), "\(command): \(result.errors)")
        #expect(!result.errors.contains("geheim") && !result.errors.contains("Z2VoZWlt"))
      }
      let missing = try await MartletProcess.run(
        command + ["--secret-key-file", "/nowhere"],
        environment: ["DATABASE_URL": database.connectionString]
      )
      #expect(missing.status == 1 && missing.errors.contains("/nowhere"))
    }
    #expect(try await database.int("SELECT count(*) FROM outbox.endpoint") == 0)
  }

  @Test func credentialsAreSetShownByKindAndCleared() async throws {
    _ = try await database.addEndpoint("https://example.com/")
    let secret = try file("secret", "opensesame\n")
    let certificate = try file("pem", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n")
    let key = try file("key", "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n")
    let kinds = {
      try await database.rows("SELECT string_agg(kind, ' ' ORDER BY kind) FROM outbox.endpoint_credential")[0][0]
    }
    func set(_ arguments: String...) async throws -> MartletProcess.Result {
      try await MartletProcess.run(
        ["endpoint", "set-auth", "1"] + arguments,
        environment: ["DATABASE_URL": database.connectionString, "PW": "opensesame"]
      )
    }
    #expect(try await set("--basic", "shop", "--password-env", "PW").status == 0)
    #expect(try await kinds() == "basic")
    #expect(try await set("--bearer-file", secret).status == 0)
    #expect(try await kinds() == "bearer")
    #expect(try await database.rows("SELECT value FROM outbox.endpoint_credential") == [[#"{"token": "opensesame"}"#]])
    #expect(try await set("--client-certificate", certificate, "--client-key", key).status == 0)
    let oauth2 = ["--oauth2-client-id", "shop", "--oauth2-client-secret-file", secret, "--oauth2-scope", "a b"]
    let token = try await MartletProcess.run(
      ["endpoint", "set-auth", "1", "--oauth2-token-url", "https://auth.example/token"] + oauth2,
      environment: ["DATABASE_URL": database.connectionString]
    )
    #expect(token.status == 0, "\(token.errors)")
    #expect(try await kinds() == "client_certificate oauth2")
    let shown = try await martlet("endpoint", "show", "1")
    #expect(shown.output.contains("client_certificate since 20") && shown.output.contains("oauth2 since 20"))
    #expect(!shown.output.contains("opensesame"))
    #expect(try await set("--clear", "--kind", "oauth2").output.contains("1 credentials"))
    #expect(try await set("--clear").output.contains("1 credentials"))
    #expect(try await set("--clear").output.contains("no such credentials"))

    for (arguments, words) in [
      (["--bearer-file", try file("two", "opensesame\nopensesame\n")], "one line"),
      (["--bearer-file", try file("blank", "opensesame opensesame")], "a space"),
      (["--bearer-file", "/nowhere"], "/nowhere"),
      (["--basic", "shop"], "nothing to read"), (["--basic", "a:b", "--password-file", secret], "a colon"),
      (["--basic", "a", "--password-env", "NONE"], "NONE"),
      (["--client-certificate", certificate, "--client-key", secret], "not PEM"),
      (["--oauth2-token-url", "https://10.1.1.1/"] + oauth2, "--allow-network"),
      (["--oauth2-token-url", "ftp://auth.example/"] + oauth2, "https"),
    ] {
      let result = try await MartletProcess.run(
        ["endpoint", "set-auth", "1"] + arguments,
        environment: ["DATABASE_URL": database.connectionString]
      )
      #expect(result.status == 1 && result.errors.contains(words), "\(arguments): \(result.errors)")
      #expect(!result.errors.contains("opensesame"))
    }
    for arguments in [
      [], ["--clear", "--basic", "a"], ["--client-certificate", certificate], ["--password-file", secret],
      ["--oauth2-client-id", "a"], ["--kind", "basic"], ["--clear", "--kind", "cookie"],
      ["--oauth2-token-url", "https://auth.example/"],
    ] {
      let result = try await MartletProcess.run(
        ["endpoint", "set-auth", "1"] + arguments,
        environment: ["DATABASE_URL": database.connectionString]
      )
      #expect(result.status == 64, "\(arguments)")
    }
    let unknown = try await martlet("endpoint", "set-auth", "9", "--bearer-file", secret)
    #expect(unknown.status == 1 && unknown.errors.contains("no endpoint 9"))
    let header = try await martlet("endpoint", "add", "https://example.com/", "--header", "Authorization: opensesame")
    #expect(header.status == 1 && header.errors.contains("set-auth") && !header.errors.contains("opensesame"))
    #expect(try await kinds() == nil)
  }

  @Test func anOperatorsRoleIsEnoughForAllButSealing() async throws {
    let role = "op_\(UUID().uuidString.prefix(8).lowercased())"
    try await database.execute("CREATE ROLE \(role) LOGIN IN ROLE outbox_operator")
    let url = database.connectionString.replacing("postgres://postgres@", with: "postgres://\(role)@")
    try #require(url != database.connectionString)
    let environment = ["DATABASE_URL": url, "MARTLET_SECRET_KEY": try await newKey(), "PW": "opensesame"]
    for (arguments, status) in [
      (["endpoint", "add", "https://example.com/", "--ed25519"], Int32(0)), (["endpoint", "rotate-secret", "1"], 0),
      (["endpoint", "set-auth", "1", "--basic", "a", "--password-env", "PW"], 0), (["endpoint", "show", "1"], 0),
      (["secret", "status"], 0), (["secret", "seal"], 1), (["endpoint", "set-auth", "1", "--clear"], 0),
      (["endpoint", "delete", "1"], 0),
    ] {
      let result = try await MartletProcess.run(arguments, environment: environment)
      #expect(result.status == status, "\(arguments): \(result.errors)")
      if status == 1 { #expect(result.errors.contains("outbox_dispatcher")) }
    }
    try await database.execute("DROP ROLE \(role)")
  }
}
