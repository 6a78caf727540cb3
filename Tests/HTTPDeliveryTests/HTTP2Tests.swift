import Testing

@testable import HTTPDelivery

@Suite(.enabled(if: Nginx.isInstalled, "nginx is not installed")) struct HTTP2Tests {
  /// What the server tells of an exchange: protocol, serial number of the connection, requests on it so far.
  private struct Report: Hashable {
    let version: String
    let connection: String
  }

  private func configuration(_ server: Nginx.Server) -> HTTPEngineConfiguration {
    var configuration = HTTPEngineConfiguration.loopback
    configuration.caFile = server.caFile
    // One connection would do for them all, and one per request would be too many.
    configuration.maxConnectionsPerHost = 8
    return configuration
  }

  /// The report travels in the body of a failure, of which the engine keeps an excerpt.
  private static let reporting = "proxy_pass http://$plain;"

  private func reports(_ completions: [HTTPCompletion]) -> [Report] {
    completions.map { completion in
      let words = String(decoding: completion.excerpt, as: UTF8.self).split(separator: " ").map(String.init)
      return words.count == 3 ? Report(version: words[0], connection: words[1]) : Report(version: "?", connection: "?")
    }
  }

  @Test func manyRequestsShareOneConnection() async throws {
    try await Nginx.with(.valid, location: Self.reporting) { server in
      let completions = try await withClient(configuration(server)) { await $0.post(server.url(), times: 60) }
      #expect(completions.allSatisfy { $0.outcome == .response(status: 500) })
      #expect(Set(reports(completions).map(\.version)) == ["HTTP/2.0"])
      #expect(Set(reports(completions)).count == 1)
    }
  }

  @Test func withoutHTTP2EachRequestUnderWayHasItsConnection() async throws {
    try await Nginx.with(.valid, listen: "ssl", location: Self.reporting) { server in
      let completions = try await withClient(configuration(server)) { await $0.post(server.url(), times: 60) }
      #expect(completions.allSatisfy { $0.outcome == .response(status: 500) })
      #expect(Set(reports(completions).map(\.version)) == ["HTTP/1.1"])
      #expect((1...8).contains(Set(reports(completions)).count))
    }
  }

  @Test func http2CanBeSwitchedOff() async throws {
    try await Nginx.with(.valid, location: Self.reporting) { server in
      var configuration = configuration(server)
      configuration.http2 = false
      let completions = try await withClient(configuration) { await $0.post(server.url(), times: 3) }
      #expect(Set(reports(completions).map(\.version)) == ["HTTP/1.1"])
    }
  }

  /// nginx answers here before it has read the body, which libcurl 7.88 mistakes for an error.
  @Test func serverThatAnswersBeforeItReadsGetsHTTP1AfterAFewFailuresAtMost() async throws {
    try await Nginx.with(.valid, location: "return 204;") { server in
      try await withClient(configuration(server)) { client in
        for _ in 0..<20 {
          let completions = await client.post(server.url(), times: 20)
          let isWell = completions.allSatisfy { $0.outcome == .response(status: 204) }
          if isWell { return }
        }
        Issue.record("still failing")
      }
    }
  }

  @Test func streamTheServerResetsIsAFailure() async throws {
    try await Nginx.with(.valid, location: "return 444;") { server in
      let completion = try await withClient(configuration(server)) { await $0.post(server.url()) }
      #expect(completion.failure?.kind == .reset || completion.failure?.kind == .malformedResponse)
    }
  }
}
