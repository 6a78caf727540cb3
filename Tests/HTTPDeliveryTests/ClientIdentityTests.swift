import Testing

@testable import HTTPDelivery

@Suite(.enabled(if: Nginx.isInstalled, "nginx is not installed")) struct ClientIdentityTests {
  /// Answers with the name in the client's certificate and the serial number of the connection; in a failure's body, of
  /// which the engine keeps an excerpt.
  private func withServer(
    verify: String = "optional",
    listen: String = "ssl http2",
    _ body: (Nginx.Server, HTTPEngineConfiguration) async throws -> Void
  ) async throws {
    try await Nginx.with(
      .valid,
      listen: listen,
      location: "proxy_pass http://$plain;",
      server: "ssl_client_certificate $ca; ssl_verify_client \(verify);",
      reporting: "$ssl_client_s_dn $connection"
    ) { server in
      var configuration = HTTPEngineConfiguration.loopback
      configuration.caFile = server.caFile
      try await body(server, configuration)
    }
  }

  private func identity(_ name: String, _ server: Nginx.Server) async throws -> ClientIdentity {
    let (certificate, key) = try await server.certificates.makeClient(name)
    return try ClientIdentity(certificateChain: certificate, privateKey: key)
  }

  private func report(_ completion: HTTPCompletion) -> (name: String, connection: String) {
    let words = String(decoding: completion.excerpt, as: UTF8.self).split(separator: " ").map(String.init)
    return (words.count == 2 ? words[0] : "", words.last ?? "\(completion.outcome)")
  }

  @Test func certificateIsShownToAServerThatAsksForIt() async throws {
    try await withServer(verify: "on") { server, configuration in
      let alice = try await identity("alice", server)
      try await withClient(configuration) { client in
        #expect(report(await client.post(server.url(), clientIdentity: alice)).name == "CN=alice")
        // nginx answers 400 to those who show none.
        #expect(await client.post(server.url()).outcome == .response(status: 400))
      }
    }
  }

  @Test(arguments: ["ssl", "ssl http2"])
  func connectionServesOneIdentityOnly(listen: String) async throws {
    try await withServer(listen: listen) { server, configuration in
      let (alice, bob) = (try await identity("alice", server), try await identity("bob", server))
      try await withClient(configuration) { client in
        var connections: [String: Set<String>] = [:]
        for _ in 0..<5 {
          for (name, identity) in [("CN=alice", alice), ("CN=bob", bob), ("", nil)] {
            let report = report(await client.post(server.url(), clientIdentity: identity))
            #expect(report.name == name)
            connections[name, default: []].insert(report.connection)
          }
        }
        // Each keeps its own connection, and none shares another's.
        #expect(connections.values.allSatisfy { $0.count == 1 })
        #expect(Set(connections.values.flatMap { $0 }).count == 3)
      }
    }
  }

  @Test func identityInUseAtTheSameTimeAsOthersIsStillItsOwn() async throws {
    try await withServer { server, configuration in
      let (alice, bob) = (try await identity("alice", server), try await identity("bob", server))
      try await withClient(configuration) { client in
        await withTaskGroup(of: Void.self) { group in
          for index in 0..<60 {
            let (name, identity) = [("CN=alice", alice), ("CN=bob", bob), ("", nil)][index % 3]
            group.addTask {
              #expect(report(await client.post(server.url(), clientIdentity: identity)).name == name)
            }
          }
        }
      }
    }
  }

  /// A certificate is public. It must not get anybody onto the connection that its owner has opened.
  @Test func anothersCertificateWithAKeyOfOnesOwnGetsNoConnection() async throws {
    try await withServer { server, configuration in
      let alice = try await identity("alice", server)
      let (_, mallorysKey) = try await server.certificates.makeClient("mallory")
      let (alicesCertificate, _) = try server.certificates.read("alice")
      let mallory = try ClientIdentity(certificateChain: alicesCertificate, privateKey: mallorysKey)
      try await withClient(configuration) { client in
        #expect(report(await client.post(server.url(), clientIdentity: alice)).name == "CN=alice")
        let failure = await client.post(server.url(), clientIdentity: mallory).failure
        #expect(failure?.kind == .tls)
        #expect(failure?.message.hasPrefix("the client certificate or its key cannot be used") == true)
        #expect(report(await client.post(server.url(), clientIdentity: alice)).name == "CN=alice")
      }
    }
  }

  @Test func identityThatOnlyLooksLikePEMIsATLSFailure() async throws {
    try await withServer { server, configuration in
      let junk = try ClientIdentity(
        certificateChain: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        privateKey: "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
      )
      let failure = try await withClient(configuration) { await $0.post(server.url(), clientIdentity: junk) }.failure
      #expect(failure?.kind == .tls)
      #expect(failure?.message.contains("AAAA") == false)
    }
  }
}

@Suite struct ClientIdentityInputTests {
  private static let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
  private static let key = "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n"

  @Test(arguments: [
    ("", key, "not PEM"), ("nonsense", key, "not PEM"), (certificate, "", "not PEM"),
    (certificate, certificate, "not PEM"),
    (certificate + key, key, "give the two apart"),
    (certificate, "-----BEGIN ENCRYPTED PRIVATE KEY-----\n", "is encrypted"),
    (certificate, "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n", "is encrypted"),
    (certificate + String(repeating: "a", count: 65_536), key, "longer than"),
    (certificate, key + String(repeating: "a", count: 65_536), "longer than"),
  ])
  func whatCannotBeUsedIsAnErrorThatSaysWhy(certificate: String, key: String, words: String) {
    let error = #expect(throws: ClientIdentityError.self) {
      try ClientIdentity(certificateChain: certificate, privateKey: key)
    }
    #expect(error?.message.contains(words) == true)
    #expect(error?.message.contains("secret") == false)
  }

  @Test func identityIsEqualToAnotherWithTheSameBytesAndShowsNoneOfThem() throws {
    let first = try ClientIdentity(certificateChain: Self.certificate, privateKey: Self.key)
    let second = try ClientIdentity(certificateChain: Self.certificate, privateKey: Self.key)
    let other = try ClientIdentity(certificateChain: Self.certificate, privateKey: Self.key + "\n")
    #expect(first == second)
    #expect(first.hashValue == second.hashValue)
    #expect(first != other)
    var dumped = ""
    dump(first, to: &dumped)
    #expect(!dumped.contains("secret") && !"\(first) \(String(reflecting: first))".contains("secret"))
  }
}
