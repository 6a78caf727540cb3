import CLibCurl
import Glibc

/// What libcurl calls while it works on a transfer; always on the engine thread, inside `curl_multi_perform`.
enum TransferCallbacks {
  /// A piece of the response body. Taking less than offered makes libcurl close the connection.
  static let body: curl_write_callback = { bytes, size, count, context in
    guard let bytes, let context else { return 0 }
    let transfer = Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
    return transfer.takeBody(UnsafeRawBufferPointer(start: bytes, count: size * count)) ? size * count : 0
  }

  /// One header line: of an interim response, of the response, or of the trailer.
  static let header: curl_write_callback = { bytes, size, count, context in
    guard let bytes, let context else { return 0 }
    let transfer = Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
    return transfer.takeHeader(UnsafeRawBufferPointer(start: bytes, count: size * count)) ? size * count : 0
  }

  /// Asked for a socket to an address that is about to be dialled. This is where the egress policy holds: after name
  /// resolution, on the very address, so a name that changes its mind between check and use gains nothing.
  static let openSocket: curl_opensocket_callback = { context, purpose, address in
    guard let context, let address, purpose == CURLSOCKTYPE_IPCXN else { return curl_socket_t(-1) }
    let transfer = Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue()
    return transfer.openSocket(address)
  }

  /// The connection stands and the request is about to go out.
  static let beforeRequest: curl_prereq_callback = { context, _, _, _, _ in
    guard let context else { return Int32(CURL_PREREQFUNC_ABORT) }
    Unmanaged<Transfer>.fromOpaque(context).takeUnretainedValue().hasConnected = true
    return Int32(CURL_PREREQFUNC_OK)
  }
}

extension Transfer {
  fileprivate func takeBody(_ bytes: UnsafeRawBufferPointer) -> Bool {
    let wanted = (200..<300).contains(status) ? keptBodyBytes : limits.excerptBytes
    if response.kept.count < wanted {
      response.kept.append(contentsOf: bytes.prefix(wanted - response.kept.count))
    }
    response.bodyBytes += bytes.count
    guard response.bodyBytes <= limits.bodyBytes else {
      response.isCutOff = true
      return false
    }
    return true
  }

  fileprivate func takeHeader(_ line: UnsafeRawBufferPointer) -> Bool {
    response.headerBytes += line.count
    if line.count <= 2 {
      response.hasWholeHeader = true
    } else if line.starts(with: "HTTP/".utf8) {
      // A status line: what came before was an interim response.
      response.hasWholeHeader = false
    }
    guard response.headerBytes <= limits.headerBytes else {
      response.headersOverflowed = true
      return false
    }
    return true
  }

  fileprivate func openSocket(_ address: UnsafeMutablePointer<curl_sockaddr>) -> curl_socket_t {
    let length = Int(address.pointee.addrlen)
    guard let pointer = curl_shim_address(address),
      let ipAddress = IPAddress(socketAddress: UnsafeRawPointer(pointer), length: length)
    else { return curl_socket_t(-1) }
    if !usesProxy, let refusal = egress.refusal(of: ipAddress) {
      if dialling.firstRefusal == nil { dialling.firstRefusal = refusal }
      return curl_socket_t(-1)
    }
    dialling.sockets += 1
    // Close-on-exec: a child process of the host program must not hold deliveries' connections open.
    let type = address.pointee.socktype | Int32(SOCK_CLOEXEC.rawValue)
    return socket(address.pointee.family, type, address.pointee.protocol)
  }
}
