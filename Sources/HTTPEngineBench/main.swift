import CLibCurl
import Glibc
import HTTPDelivery
import Synchronization

// Compares the engine with a bare libcurl multi loop, in turns, against one server.
//   HTTPEngineBench URL [concurrency] [requests per round] [rounds] [ca file]

let arguments = CommandLine.arguments
guard arguments.count > 1 else { fatalError("usage: HTTPEngineBench URL [concurrency] [requests] [rounds] [ca file]") }
let url = arguments[1]
let concurrency = arguments.count > 2 ? Int(arguments[2])! : 64
let count = arguments.count > 3 ? Int(arguments[3])! : 100_000
let rounds = arguments.count > 4 ? Int(arguments[4])! : 5
let caFile: String? = arguments.count > 5 ? arguments[5] : nil

let headers = [
  "Content-Type: application/json",
  "webhook-id: 0190f5fe-7c00-7a00-8abc-012345678901",
  "webhook-timestamp: 1731705121",
  "webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
]
let bodyBytes = [UInt8](repeating: 0x61, count: 512)

func processorSeconds() -> Double {
  var usage = rusage()
  getrusage(0, &usage)  // RUSAGE_SELF
  func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
  return seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

struct Result {
  var perSecond: Double
  var microseconds: Double
}

func measured(_ work: () async -> Void) async -> Result {
  let cpu = processorSeconds()
  let start = ContinuousClock.now
  await work()
  let elapsed = ContinuousClock.now - start
  let seconds = Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) / 1e18
  return Result(perSecond: Double(count) / seconds, microseconds: (processorSeconds() - cpu) * 1e6 / Double(count))
}

func bare() {
  let multi = curl_multi_init()!
  curl_shim_multi_set_long(multi, CURLMOPT_MAXCONNECTS, 5000)
  curl_shim_multi_set_long(multi, CURLMOPT_PIPELINING, Int(CURLPIPE_MULTIPLEX))
  var list: UnsafeMutablePointer<curl_slist>?
  for header in headers + ["Expect:"] { list = curl_slist_append(list, header) }
  let discard: curl_write_callback = { _, size, count, _ in size * count }
  bodyBytes.withUnsafeBytes { body in
    var started = 0
    for _ in 0..<min(concurrency, count) {
      let easy = curl_easy_init()!
      curl_shim_set_string(easy, CURLOPT_URL, url)
      curl_shim_set_long(easy, CURLOPT_POST, 1)
      curl_shim_set_pointer(easy, CURLOPT_HTTPHEADER, list)
      curl_shim_set_pointer(easy, CURLOPT_POSTFIELDS, body.baseAddress)
      curl_shim_set_offset(easy, CURLOPT_POSTFIELDSIZE_LARGE, curl_off_t(body.count))
      curl_shim_set_long(easy, CURLOPT_TIMEOUT_MS, 15_000)
      curl_shim_set_long(easy, CURLOPT_NOSIGNAL, 1)
      curl_shim_set_string(easy, CURLOPT_PROXY, "")
      if let caFile { curl_shim_set_string(easy, CURLOPT_CAINFO, caFile) }
      curl_shim_set_write_callback(easy, CURLOPT_WRITEFUNCTION, discard)
      curl_multi_add_handle(multi, easy)
      started += 1
    }
    var finished = 0
    while finished < count {
      var running: Int32 = 0
      curl_multi_perform(multi, &running)
      var again = false
      var remaining: Int32 = 0
      while let message = curl_multi_info_read(multi, &remaining) {
        guard let easy = message.pointee.easy_handle else { continue }
        var status = 0
        curl_shim_get_long(easy, CURLINFO_RESPONSE_CODE, &status)
        if message.pointee.data.result != CURLE_OK || status / 100 != 2 {
          fatalError("bare: \(status) code \(message.pointee.data.result)")
        }
        finished += 1
        curl_multi_remove_handle(multi, easy)
        if started < count {
          started += 1
          curl_multi_add_handle(multi, easy)
          again = true
        } else {
          curl_easy_cleanup(easy)
        }
      }
      if !again, finished < count { curl_multi_poll(multi, nil, 0, 1000, nil) }
    }
  }
  curl_slist_free_all(list)
  curl_multi_cleanup(multi)
}

func engine() async {
  let body = RequestBody(bodyBytes)
  func request(_ tag: Int) -> HTTPRequest {
    HTTPRequest(tag: UInt64(tag), url: url, headers: headers, body: body, timeout: .seconds(15))
  }
  struct Progress {
    var started = 0
    var finished = 0
    var engine: HTTPEngine?
  }
  let progress = Mutex(Progress())
  let configuration = HTTPEngineConfiguration(
    egress: EgressPolicy(
      allowHTTP: true,
      allowedNetworks: [try! CIDR(parsing: "127.0.0.0/8"), try! CIDR(parsing: "::1")]
    ),
    maxConnections: 5000,
    maxConnectionsPerHost: 4096,
    caFile: caFile
  )
  await withoutActuallyEscaping(request) { _ in
    let engine = HTTPEngine(configuration: configuration) { completions in
      for completion in completions {
        if case .failure(let failure) = completion.outcome, failure.kind == .aborted { continue }
        guard case .response(let status) = completion.outcome, status / 100 == 2 else {
          fatalError("engine: \(completion.outcome)")
        }
      }
      return progress.withLock { progress in
        progress.finished += completions.count
        let more = min(completions.count, count - progress.started)
        if progress.finished == count { progress.engine?.shutdown() }
        let first = progress.started
        progress.started += more
        return (0..<more).map {
          HTTPRequest(tag: UInt64(first + $0), url: url, headers: headers, body: body, timeout: .seconds(15))
        }
      }
    }
    let first = min(concurrency, count)
    progress.withLock {
      $0.started = first
      $0.engine = engine
    }
    if hung > 0 {
      engine.submit(
        (0..<hung).map { _ in
          HTTPRequest(
            tag: 0,
            url: "http://127.0.0.1:\(hungPort)/",
            headers: headers,
            body: body,
            timeout: .seconds(600)
          )
        }
      )
    }
    engine.submit((0..<first).map(request))
    await engine.run()
    progress.withLock { $0.engine = nil }
  }
}

/// Requests that hang on a listener which never accepts, beside the measured ones: HUNG=1000 in the environment.
let hung = getenv("HUNG").flatMap { Int(String(cString: $0)) } ?? 0
let hungPort = hung > 0 ? listenForever() : 0
func listenForever() -> UInt16 {
  let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
  var address = sockaddr_in()
  address.sin_family = sa_family_t(AF_INET)
  address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
  var length = socklen_t(MemoryLayout<sockaddr_in>.size)
  return withUnsafeMutablePointer(to: &address) {
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
      guard bind(descriptor, $0, length) == 0, listen(descriptor, 4096) == 0 else { fatalError("listen") }
      getsockname(descriptor, $0, &length)
    }
    return UInt16(bigEndian: $0.pointee.sin_port)
  }
}

func show(_ name: String, _ result: Result) {
  print("\(name): \(Int(result.perSecond)) requests/s, \((result.microseconds * 10).rounded() / 10) us CPU each")
}
var ratios: [Double] = []
for round in 0..<rounds {
  let plain = arguments.count > 6 ? Result(perSecond: 1, microseconds: 1) : await measured { bare() }
  let ours = await measured { await engine() }
  show("round \(round) bare  ", plain)
  show("round \(round) engine", ours)
  ratios.append(ours.microseconds / plain.microseconds)
}
ratios.sort()
print("CPU per request, engine / bare: median \((ratios[ratios.count / 2] * 1000).rounded() / 1000)")
