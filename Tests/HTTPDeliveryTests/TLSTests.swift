import Testing

@testable import HTTPDelivery

@Suite(.enabled(if: Nginx.isInstalled, "nginx is not installed")) struct TLSTests {
  private func configuration(_ server: Nginx.Server) -> HTTPEngineConfiguration {
    var configuration = HTTPEngineConfiguration.loopback
    configuration.caFile = server.caFile
    return configuration
  }

  @Test func certificateOfATrustedAuthorityIsAccepted() async throws {
    try await Nginx.with(.valid) { server in
      let completion = try await withClient(configuration(server)) { await $0.post(server.url()) }
      #expect(completion.outcome == .response(status: 200))
    }
  }

  @Test(arguments: [Certificates.Kind.expired, .wrongHost, .selfSigned])
  func badCertificateIsATLSFailure(kind: Certificates.Kind) async throws {
    try await Nginx.with(kind) { server in
      let failure = try await withClient(configuration(server)) { await $0.post(server.url()) }.failure
      #expect(failure?.kind == .tls)
    }
  }

  @Test func privateAuthorityIsNotTrustedUnlessConfigured() async throws {
    try await Nginx.with(.valid) { server in
      let failure = try await withClient(.loopback) { await $0.post(server.url()) }.failure
      #expect(failure?.kind == .tls)
    }
  }

  @Test func nameOfTheURLIsWhatTheCertificateMustHold() async throws {
    try await Nginx.with(.valid) { server in
      let failure = try await withClient(configuration(server)) { await $0.post(server.url(host: "127.0.0.1")) }.failure
      #expect(failure?.kind == .tls)
    }
  }

  @Test func oldTLSIsRefused() async throws {
    try await Nginx.with(.valid, server: "ssl_protocols TLSv1.1; ssl_ciphers ALL:@SECLEVEL=0;") { server in
      let failure = try await withClient(configuration(server)) { await $0.post(server.url()) }.failure
      #expect(failure?.kind == .tls)
      // It is us who refuse: another client that insists on it is served.
      let log = server.certificates.directory.appendingPathComponent("s_client")
      let client = try ChildProcess(
        ["openssl", "s_client", "-connect", "127.0.0.1:\(server.port)", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        log: log
      )
      #expect(await client.waitUntilExit() == 0)
      #expect(client.output.contains("TLSv1.1"))
    }
  }

  @Test func serverThatSpeaksNoTLSIsATLSFailure() async throws {
    let server = ScriptedServer { peer in
      peer.send("HTTP/1.1 400 Bad Request\r\n\r\n")
      peer.hang()
    }
    let failure = try await withClient { await $0.post("https://localhost:\(server.port)/") }.failure
    #expect(failure?.kind == .tls)
  }

  @Test func handshakeThatHangsEndsAtTheDeadline() async throws {
    let server = ScriptedServer { $0.hang() }
    try await withClient { client in
      // More than one: those who wait for the first one's connection have deadlines of their own.
      async let first = client.post("https://localhost:\(server.port)/", timeout: .milliseconds(300))
      async let second = client.post("https://localhost:\(server.port)/", timeout: .milliseconds(300))
      #expect(await first.failure?.kind == .timeout)
      #expect(await second.failure?.kind == .timeout)
    }
  }
}
