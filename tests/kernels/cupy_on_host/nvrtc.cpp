// libnvrtc.so.13 whose target is the host: g++, with device.h before the source and a launcher behind every kernel.
//
// A "cubin" is the path of the shared library. CUPY_ON_HOST names the folder of images and of this one's headers, among
// them device.h compiled with the same CUPY_ON_HOST_FLAGS: it is the most of what a small kernel has to be compiled with.
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>
#include <string>

namespace {

struct Program {
    std::string source, log, image;
};

const char *const GLOBAL = "CUPY_ON_HOST_GLOBAL";  // marks kernels in preprocessed text
enum { SUCCESS, INVALID_INPUT = 3, COMPILATION = 6 };

std::string read(const std::string &path)
{
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

std::string quoted(const std::string &text) { return "'" + std::regex_replace(text, std::regex("'"), "'\\''") + "'"; }

bool runs(const std::string &command) { return std::system(("LD_PRELOAD= " + command).c_str()) == 0; }

bool compile(const Program &program, const std::string &stem, const std::string &flags)
{
    const std::string text = stem + ".cpp", log = " 2> " + stem + ".log", head = "#include \"device.h\"\n";
    const std::string compiler = "g++ -x c++ " CUPY_ON_HOST_FLAGS + flags;
    std::ofstream(text) << head << "#undef __global__\n#define __global__ " << GLOBAL << "\n" << program.source;
    if (!runs(compiler + " -E -P -fpch-preprocess -o " + stem + ".i " + text + log)) return false;
    std::set<std::string> kernels;
    const std::string expanded = read(stem + ".i");
    const std::regex kernel(std::string(GLOBAL) + "\\s+(?:\\w+\\s*\\([^)]*\\)\\s*)?void\\s+(\\w+)\\s*\\(");
    for (std::sregex_iterator k(expanded.begin(), expanded.end(), kernel), end; k != end; ++k) kernels.insert((*k)[1]);
    {
        std::ofstream out(text);
        out << head << program.source << "\n";
        for (const std::string &name : kernels) out << "CUPY_ON_HOST_KERNEL(" << name << ")\n";
    }
    return runs(compiler + " -shared -o " + stem + ".so " + text + log);
}

}  // namespace

extern "C" {

int nvrtcVersion(int *major, int *minor) { return *major = 13, *minor = 0, SUCCESS; }
const char *nvrtcGetErrorString(int error)
{
    return error == COMPILATION ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR_INVALID_INPUT";
}
int nvrtcCreateProgram(Program **program, const char *source, const char *, int headers, const char **, const char **)
{
    if (headers) return INVALID_INPUT;
    return *program = new Program{source, "", ""}, SUCCESS;
}
int nvrtcDestroyProgram(Program **program) { return delete *program, *program = nullptr, SUCCESS; }
int nvrtcCompileProgram(Program *program, int count, const char **options)
{
    const std::string folder = std::getenv("CUPY_ON_HOST"), images = folder + "/images";
    std::string flags = " -I" + quoted(folder) + " -I" + quoted(folder + "/cuda"), key = program->source;
    for (int k = 0; k < count; ++k) {
        const std::string option = options[k];
        if (option.rfind("-I", 0) == 0 || option.rfind("-D", 0) == 0) flags += " " + quoted(option);
    }
    key += flags;
    mkdir(images.c_str(), 0777);
    const std::string stem = images + "/" + std::to_string(std::hash<std::string>()(key));
    program->image = stem + ".so";
    if (access(program->image.c_str(), F_OK) == 0) return SUCCESS;
    const std::string own = stem + "-" + std::to_string(getpid());
    const bool compiled = compile(*program, own, flags);
    program->log = read(own + ".log");
    if (compiled) std::rename((own + ".so").c_str(), program->image.c_str());
    for (const char *rest : {".cpp", ".i", ".log"}) unlink((own + rest).c_str());
    return compiled ? SUCCESS : COMPILATION;
}
// a string's own zero, and another, which CuPy strips
int nvrtcGetCUBINSize(Program *program, size_t *size) { return *size = program->image.size() + 2, SUCCESS; }
int nvrtcGetCUBIN(Program *program, char *out)
{
    std::memcpy(out, program->image.c_str(), program->image.size() + 1);
    return out[program->image.size() + 1] = 0, SUCCESS;
}
// CuPy looks at the comments of an empty program's PTX, to know the compiler's version
int nvrtcGetPTXSize(Program *, size_t *size) { return *size = sizeof "// the host", SUCCESS; }
int nvrtcGetPTX(Program *, char *out) { return std::strcpy(out, "// the host"), SUCCESS; }
int nvrtcGetProgramLogSize(Program *program, size_t *size) { return *size = program->log.size() + 1, SUCCESS; }
int nvrtcGetProgramLog(Program *program, char *out) { return std::strcpy(out, program->log.c_str()), SUCCESS; }
int nvrtcGetNumSupportedArchs(int *count) { return *count = 3, SUCCESS; }
int nvrtcGetSupportedArchs(int *archs) { return archs[0] = 80, archs[1] = 90, archs[2] = 100, SUCCESS; }
int nvrtcAddNameExpression(Program *, const char *) { return INVALID_INPUT; }
int nvrtcGetLoweredName(Program *, const char *, const char **) { return INVALID_INPUT; }
int nvrtcGetLTOIRSize(Program *, size_t *) { return INVALID_INPUT; }
int nvrtcGetLTOIR(Program *, char *) { return INVALID_INPUT; }

}  // extern "C"
