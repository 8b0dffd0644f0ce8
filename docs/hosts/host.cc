// A minimal host of a patched Latte export in C++: needs only ONNX Runtime's C++ API.
//
//   g++ -std=c++17 -O2 host.cc -I onnxruntime/include -L onnxruntime/lib -lonnxruntime -o host
//   ./host patched/model.onnx samples.bin 50
//
// For a model with every shape fixed that was patched with --drive step: 50 is its number of steps. It then needs no
// plan and hence no JSON: it knows the names of the model's own inputs, `pab.step`, and that the output `<input>.next`
// is fed back as `<input>`. To drive by flags, read the plan with a JSON library and feed `rules[i].flag` with
// `schedule.broadcast[i][step]`, as host.py and host.rs do.
//
// Where your host has noise, text and a scheduler, this one has `numbers`, `timestep_at` and `scheduler_step`.

#include <onnxruntime_cxx_api.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <string>
#include <vector>

namespace {

const std::string kLatent = "hidden_states", kTimestep = "timestep", kText = "encoder_hidden_states";
const std::string kPrediction = "sample", kStep = "pab.step", kNext = ".next";

int64_t Count(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  return count;
}

// Stands in for noise: numbers from -0.5 to 0.5 that every language makes alike.
std::vector<float> Numbers(int64_t count, uint64_t seed) {
  std::vector<float> numbers(count);
  for (int64_t index = 0; index < count; ++index) {
    const uint64_t mixed = ((index + seed * 1000003ULL) * 2654435761ULL) % (1ULL << 32);
    numbers[index] = static_cast<float>(mixed >> 8) / 16777216.0f - 0.5f;
  }
  return numbers;
}

// DDIM's leading spacing over 1000 timesteps, offset 1.
int64_t TimestepAt(int64_t step, int64_t steps) { return (steps - 1 - step) * (1000 / steps) + 1; }

template <typename T>
Ort::Value Tensor(const Ort::MemoryInfo& memory, std::vector<T>& data, const std::vector<int64_t>& shape) {
  return Ort::Value::CreateTensor<T>(memory, data.data(), data.size(), shape.data(), shape.size());
}

// Zeros in memory of ONNX Runtime, for a cache or state that no step has filled.
Ort::Value Zeros(const Ort::ConstTensorTypeAndShapeInfo& info) {
  Ort::AllocatorWithDefaultOptions allocator;
  std::vector<int64_t> shape = info.GetShape();
  for (int64_t& size : shape) size = size < 0 ? 1 : size;
  Ort::Value value = Ort::Value::CreateTensor(allocator, shape.data(), shape.size(), info.GetElementType());
  std::fill_n(static_cast<char*>(value.GetTensorMutableRawData()), value.GetTensorSizeInBytes(), 0);
  return value;
}

// Stands in for a scheduler. The prediction may have more channels (axis 1) than the latent.
void SchedulerStep(const Ort::Value& prediction, int64_t batch, std::vector<float>& latent) {
  const float* predicted = prediction.GetTensorData<float>();
  const int64_t given = prediction.GetTensorTypeAndShapeInfo().GetElementCount() / batch;
  const int64_t wanted = static_cast<int64_t>(latent.size()) / batch;
  for (int64_t clip = 0; clip < batch; ++clip) {
    for (int64_t index = 0; index < wanted; ++index) {
      latent[clip * wanted + index] -= 0.125f * predicted[clip * given + index];
    }
  }
}

int Run(const char* path, const char* output, int64_t steps) {
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "host");
  Ort::Session session(env, path, Ort::SessionOptions{});
  Ort::AllocatorWithDefaultOptions allocator;
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeCPU);

  std::vector<std::string> inputs, outputs;
  std::map<std::string, Ort::TypeInfo> types;
  for (size_t index = 0; index < session.GetInputCount(); ++index) {
    inputs.emplace_back(session.GetInputNameAllocated(index, allocator).get());
    types.emplace(inputs.back(), session.GetInputTypeInfo(index));
  }
  for (size_t index = 0; index < session.GetOutputCount(); ++index) {
    outputs.emplace_back(session.GetOutputNameAllocated(index, allocator).get());
  }
  const auto shape = [&](const std::string& name) { return types.at(name).GetTensorTypeAndShapeInfo().GetShape(); };

  const std::vector<int64_t> latent_shape = shape(kLatent), timestep_shape = shape(kTimestep);
  const std::vector<int64_t> text_shape = types.count(kText) ? shape(kText) : std::vector<int64_t>{};
  std::vector<float> latent = Numbers(Count(latent_shape), 1), text = Numbers(Count(text_shape), 2);
  std::map<std::string, Ort::Value> caches;  // By the name of the input; what is missing is zeros.
  std::ofstream file(output, std::ios::binary);

  for (int64_t step = 0; step < steps; ++step) {
    std::vector<int64_t> timestep(Count(timestep_shape), TimestepAt(step, steps)), number{step};
    std::vector<const char*> input_names, output_names;
    std::vector<Ort::Value> feeds;
    for (const std::string& name : inputs) {
      input_names.push_back(name.c_str());
      if (name == kLatent) {
        feeds.push_back(Tensor(memory, latent, latent_shape));
      } else if (name == kTimestep) {
        feeds.push_back(Tensor(memory, timestep, timestep_shape));
      } else if (name == kText) {
        feeds.push_back(Tensor(memory, text, text_shape));
      } else if (name == kStep) {
        feeds.push_back(Tensor(memory, number, {}));
      } else if (const auto cache = caches.find(name); cache != caches.end()) {
        feeds.push_back(std::move(cache->second));
      } else {
        feeds.push_back(Zeros(types.at(name).GetTensorTypeAndShapeInfo()));
      }
    }
    for (const std::string& name : outputs) output_names.push_back(name.c_str());
    std::vector<Ort::Value> results = session.Run(Ort::RunOptions{}, input_names.data(), feeds.data(), feeds.size(),
                                                  output_names.data(), output_names.size());
    for (size_t index = 0; index < results.size(); ++index) {
      const std::string& name = outputs[index];
      if (name == kPrediction) {
        SchedulerStep(results[index], latent_shape.at(0), latent);
      } else if (name.size() > kNext.size() && name.compare(name.size() - kNext.size(), kNext.size(), kNext) == 0) {
        caches.insert_or_assign(name.substr(0, name.size() - kNext.size()), std::move(results[index]));
      }
    }
    file.write(reinterpret_cast<const char*>(latent.data()), static_cast<std::streamsize>(latent.size() * sizeof(float)));
  }
  return file ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: host MODEL.onnx OUTPUT STEPS\n";
    return EXIT_FAILURE;
  }
  try {
    return Run(argv[1], argv[2], std::atoll(argv[3]));
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return EXIT_FAILURE;
  }
}
