// What a person would see of the report, and do with it.
const box = document.querySelector(".compare");
const before = box.querySelector(".before"), after = box.querySelector(".after"), gt = document.querySelector("img.gt");
const slider = box.querySelector("input"), clips = [];
for (const value of [50, 10, 100]) {
  slider.value = value;
  slider.dispatchEvent(new Event("input"));
  clips.push(getComputedStyle(before).clipPath);
}
const own = after.src;
document.querySelector("[data-view=gt]").click();
const shows_gt = after.src === gt.src && after.src !== own;
const tag = box.querySelector(".right").textContent;
document.querySelector("[data-view=repaired]").click();
const images = [...document.images];
return {
  clips, shows_gt, tag, is_back: after.src === own,
  sliders: document.querySelectorAll(".compare input").length,
  loaded: images.filter(image => image.complete && image.naturalWidth === 48).length,
  images: images.length,
  ratio: after.clientWidth / after.clientHeight, small: gt.clientWidth / gt.clientHeight,
  overhang: document.documentElement.scrollWidth - innerWidth, width: innerWidth,
};
