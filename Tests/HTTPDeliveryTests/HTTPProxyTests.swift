import Testing

@testable import HTTPDelivery

@Suite struct HTTPProxyTests {
  private func configuration(_ proxy: String, allowHTTP: Bool = true) throws -> HTTPEngineConfiguration {
    // No network is allowed beyond the public ones: the proxy's own address is trusted without being listed.
    HTTPEngineConfiguration(egress: EgressPolicy(allowHTTP: allowHTTP), proxy: try HTTPProxy(parsing: proxy))
  }

  @Test func plainRequestIsHandedToTheProxyWhole() async throws {
    let proxy = ScriptedProxy()
    try await withClient(configuration(proxy.url)) { client in
      for _ in 0..<3 {
        #expect(await client.post("http://hooks.test:8080/a?b=c").outcome == .response(status: 204))
      }
    }
    #expect(
      proxy.requests.map { $0.lines[0] } == Array(repeating: "POST http://hooks.test:8080/a?b=c HTTP/1.1", count: 3)
    )
    #expect(proxy.requests[0].body == Array("{}".utf8))
    #expect(proxy.acceptedCount == 1)
  }

  @Test(.enabled(if: Nginx.isInstalled, "nginx is not installed"))
  func secureRequestGoesThroughATunnelThatSeesNothingOfIt() async throws {
    try await Nginx.with(.valid) { server in
      let proxy = ScriptedProxy(target: server.port)
      var configuration = try configuration(
        proxy.url.replacing("http://", with: "http://alice:s%40cret@"),
        allowHTTP: false
      )
      configuration.caFile = server.caFile
      // The certificate names "localhost", which the policy refuses to be sent to unless loopback is allowed.
      configuration.egress.allowedNetworks = [cidr("127.0.0.0/8")]
      try await withClient(configuration) { client in
        for _ in 0..<3 {
          let completion = await client.post(server.url(), headers: ["X-Secret: hunter2", "webhook-id: 7"])
          #expect(completion.outcome == .response(status: 200))
        }
      }
      let request = try #require(proxy.requests.first)
      #expect(proxy.requests.count == 1)
      #expect(request.lines[0] == "CONNECT localhost:\(server.port) HTTP/1.1")
      #expect(request.header("x-secret") == nil && request.header("webhook-id") == nil)
      // "alice:s@cret"
      #expect(request.header("proxy-authorization") == "Basic YWxpY2U6c0BjcmV0")
    }
  }

  @Test(.enabled(if: Nginx.isInstalled, "nginx is not installed"))
  func certificateOfTheEndpointIsCheckedThroughTheTunnelAndIsNotTheProxysFault() async throws {
    try await Nginx.with(.selfSigned) { server in
      let proxy = ScriptedProxy(target: server.port)
      var configuration = try configuration(proxy.url)
      configuration.egress.allowedNetworks = [cidr("127.0.0.0/8")]
      let failure = try await withClient(configuration) { await $0.post(server.url()) }.failure
      #expect(failure?.kind == .tls)
      #expect(failure?.message.contains("proxy") == false)
    }
  }

  @Test func credentialsGoToTheProxyOnlyWhenGiven() async throws {
    let proxy = ScriptedProxy(credentials: "Basic dTpw")
    let refused = HTTPFailure(.proxy, "the proxy wants other credentials: it answered 407")
    for url in ["http://hooks.test/", "https://hooks.test/"] {
      #expect(try await withClient(configuration(proxy.url)) { await $0.post(url) }.failure == refused)
      let wrong = try configuration(proxy.url.replacing("http://", with: "http://u:wrong@"))
      #expect(try await withClient(wrong) { await $0.post(url) }.failure == refused)
    }
    let right = try configuration(proxy.url.replacing("http://", with: "http://u:p@"))
    #expect(try await withClient(right) { await $0.post("http://hooks.test/") }.outcome == .response(status: 204))
  }

  @Test func proxyThatIsNotThereIsNotTheEndpointsFault() async throws {
    let configuration = try configuration("http://127.0.0.1:\(ScriptedServer.closedPort())")
    for url in ["http://hooks.test/", "https://hooks.test/"] {
      let failure = try await withClient(configuration) { await $0.post(url) }.failure
      #expect(failure == HTTPFailure(.proxy, "no connection to the proxy could be made: Connection refused"))
    }
  }

  @Test func proxysNameThatDoesNotResolveIsNotTheEndpointsFault() async throws {
    let configuration = try configuration("http://proxy.invalid:3128")
    let failure = try await withClient(configuration) { await $0.post("https://hooks.test/") }.failure
    #expect(failure == HTTPFailure(.proxy, "the proxy's host name could not be resolved"))
  }

  @Test(arguments: [403, 500, 502, 503, 504])
  func refusedTunnelNamesTheProxyAndItsAnswer(status: Int) async throws {
    let proxy = ScriptedServer.answering("HTTP/1.1 \(status) No\r\nContent-Length: 5\r\n\r\nsorry")
    let configuration = try configuration("http://127.0.0.1:\(proxy.port)")
    let failure = try await withClient(configuration) { await $0.post("https://hooks.test/") }.failure
    #expect(failure == HTTPFailure(.proxy, "the proxy made no connection to the endpoint: it answered \(status)"))
  }

  @Test(arguments: ["", "nonsense\r\n\r\n", "HTTP/1.1 200", "SSH-2.0-OpenSSH\r\n"])
  func proxyThatIsNoneIsAProxyFailure(answer: String) async throws {
    let proxy = ScriptedServer { peer in
      _ = peer.readRequest()
      peer.send(answer)
    }
    let configuration = try configuration("http://127.0.0.1:\(proxy.port)")
    let failure = try await withClient(configuration) { await $0.post("https://hooks.test/") }.failure
    #expect(failure?.kind == .proxy, "\(failure?.description ?? "")")
  }

  @Test func silentProxyIsWaitedForUntilTheDeadline() async throws {
    let proxy = ScriptedServer { $0.hang() }
    let configuration = try configuration("http://127.0.0.1:\(proxy.port)")
    let failure = try await withClient(configuration) {
      await $0.post("https://hooks.test/", timeout: .milliseconds(300))
    }.failure
    #expect(
      failure == HTTPFailure(.timeout, "the deadline passed while connecting through the proxy")
    )
  }

  @Test(arguments: ["http://127.0.0.1/", "http://localhost/", "http://[::ffff:10.0.0.1]/", "http://denied.test/"])
  func whatAURLSaysIsCheckedWithAProxyToo(url: String) async throws {
    let proxy = ScriptedProxy()
    var configuration = try configuration(proxy.url)
    configuration.egress.deniedHosts = [host("denied.test")]
    let failure = try await withClient(configuration) { await $0.post(url) }.failure
    #expect(failure?.kind == .egressDenied)
    #expect(proxy.acceptedCount == 0)
  }

  @Test func passwordIsNeverShown() throws {
    let proxy = try HTTPProxy(parsing: "http://u:hunter2@proxy.test:3128")
    var dumped = "\(proxy) \(String(reflecting: proxy))"
    dump(proxy, to: &dumped)
    dump(HTTPEngineConfiguration(proxy: proxy), to: &dumped)
    #expect(dumped.contains("proxy.test:3128"))
    #expect(!dumped.contains("hunter2"))
  }

  @Test(
    arguments: [
      ("http://proxy.test:3128", nil), ("http://proxy.test:3128/", nil), ("HTTP://u:p@proxy.test:3128", "u:p"),
      ("http://u:@10.0.0.1:1", "u:"), ("http://a%3Bb:p%3A%40%2F@[::1]:3128", "a;b:p:@/"),
    ] as [(String, String?)]
  )
  func proxyIsTakenApart(text: String, credentials: String?) throws {
    let proxy = try HTTPProxy(parsing: text)
    #expect(proxy.user.map { $0 + ":" + (proxy.password ?? "") } == credentials)
  }

  @Test(arguments: [
    "", "proxy.test:3128", "https://proxy.test:3128", "socks5://proxy.test:1080", "http://", "http://proxy.test",
    "http://proxy.test:0", "http://proxy.test:99999", "http://proxy.test:3128/path", "http://proxy.test:3128?q",
    "http://proxy.test:3128#f", "http://hunter2@proxy.test:3128", "http://:hunter2@proxy.test:3128x",
    "http://a%3Ab:hunter2@proxy.test:1", "http://u:hunter2\r\n@proxy.test:1", "http://u:hunter2%00x@proxy.test:1",
    "http://u:hunter2%0d%0ax@proxy.test:1", "http://u:hunter2@:3128", "http://pröxy.test:1",
  ])
  func whatIsNoProxyIsAnErrorThatHidesThePassword(text: String) {
    let error = #expect(throws: HTTPProxyError.self) { try HTTPProxy(parsing: text) }
    #expect(error?.message.contains("hunter2") == false)
  }
}
